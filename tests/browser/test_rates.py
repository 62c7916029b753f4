# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Many lines: opened at once, and shown as they come, without taking the page from who uses it."""

from __future__ import annotations

from playwright.async_api import Page, expect

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.browser.test_page import open_page, running_request, user

__all__ = ["user"]  # the fixture

_STAMP = "2026-11-30T{:02d}:{:02d}:{:02d}.000000000Z line {:06d}\n"


async def test_seven_long_files_are_opened_at_once(page: Page, stack: Stack, user: Actor) -> None:
    """86,400 lines each, of a day: their ends are merged, and what is on the screen is drawn."""
    cluster = stack.sandbox.cluster
    request, container = await running_request(stack, user)
    lines = (_STAMP.format(n // 3600 % 24, n // 60 % 60, n % 60, n) for n in range(86_400))
    text = "".join(lines).encode()
    for n in range(7):
        await cluster.write_log(container, f"file-{n}.txt", text)
    await open_page(page, stack, request.uuid, user)
    await page.get_by_role("tab", name="All files").click()
    await expect(page.locator("#log")).to_contain_text("line 086399")
    await expect(page.locator("#count")).to_contain_text("14,000 lines")
    assert await page.locator("#log .cm-line").count() < 200


async def test_no_click_is_lost_while_lines_come(page: Page, stack: Stack, user: Actor) -> None:
    """Each of six clicks on a line names it in the address, and nothing moves below the pointer."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "".join(f"line {n}\n" for n in range(500)))
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#count")).to_contain_text("500 lines")
    await page.locator("#log .cm-content").press("PageUp")  # reads, and does not follow
    for n in range(6):
        many = "".join(f"more {n} {m}\n" for m in range(300))
        await cluster.write_log(request, "stdout.txt", many.encode())
        line = page.locator("#log .cm-line").nth(10 + n)
        text = await line.inner_text()
        await line.click()
        await expect(page.locator("#log .picked")).to_have_text(text)
        assert "offset=" in page.url


async def test_a_selection_survives_lines_by_the_thousand(
    page: Page, stack: Stack, user: Actor
) -> None:
    """And what is selected is copied as it is."""
    cluster = stack.sandbox.cluster
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    request, _ = await running_request(stack, user, "".join(f"line {n}\n" for n in range(500)))
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#count")).to_contain_text("500 lines")
    await page.get_by_text("line 490", exact=True).click()
    await page.keyboard.press("Shift+ArrowDown")
    await page.keyboard.press("Shift+ArrowDown")
    for part in range(10):
        many = "".join(f"more {part} {n}\n" for n in range(1000))
        await cluster.write_log(request, "stdout.txt", many.encode())
    await expect(page.locator("#count")).to_contain_text("10,500 lines")
    await page.keyboard.press("Control+c")
    copied = str(await page.evaluate("navigator.clipboard.readText()")).split("\n")
    assert len(copied) == 3
    assert copied[1] == "line 491"
