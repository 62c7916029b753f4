# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Large and odd logs on the page: fetched by range as one scrolls, with bounded memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from sandbox.logs.log_files import NumberedLines
from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.browser.test_page import open_page, running_request, scroll_up, user
from tests.support import long_ago
from tests.support.fronts import nginx

__all__ = ["user"]  # the fixture


async def test_a_gigabyte_is_read_by_range(page: Page, stack: Stack, user: Actor) -> None:
    """Its end is there at once, a link goes to a line in its middle, and as one scrolls from there
    the window moves; the page holds a small part of it."""
    source = NumberedLines(10_000_000, 100)
    request = await long_ago.ended(stack, user, source)
    offset = 500_000_000
    await open_page(page, stack, request.uuid, user, f"&file=stdout.txt&offset={offset}")
    wanted = source.line(offset // 100).decode().rstrip("\n")
    await expect(page.locator("#log .picked")).to_have_text(wanted)
    await page.locator("#sought").fill(f"{400_000:010d}")
    await page.locator("#sought").press("Enter")  # found before all is looked through
    await expect(page.locator("#log .picked")).to_contain_text("0000400000")
    await open_page(page, stack, request.uuid, user, f"&file=stdout.txt&offset={offset}")
    await expect(page.locator("#log .picked")).to_have_text(wanted)
    top = offset // 100
    for _ in range(4):
        top = await scroll_up(page, top)
    await page.locator("#follow").click()
    await expect(page.locator("#log")).to_contain_text(source.line(9_999_999).decode().rstrip("\n"))
    assert await page.locator("#log .cm-line").count() < 200
    assert await heap(page) < 60e6


async def heap(page: Page) -> float:
    """Bytes of JavaScript objects that are in use, after a collection of what is not."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.enable")
    await session.send("HeapProfiler.collectGarbage")
    used = await session.send("Runtime.getHeapUsage")
    return float(used["usedSize"])


async def test_a_line_has_a_link(page: Page, stack: Stack, user: Actor) -> None:
    """A click puts file and byte offset into the address; opened again, that line is shown."""
    lines = "".join(f"zeile {n} é\n" for n in range(400))
    request, _ = await running_request(stack, user, lines)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("zeile 399")
    await page.get_by_text("zeile 390 é", exact=True).click()
    offset = len("".join(f"zeile {n} é\n" for n in range(390)).encode())
    assert f"file=stdout.txt&offset={offset}" in page.url
    assert user.token not in page.url
    await page.reload()
    await expect(page.locator("#log .picked")).to_have_text("zeile 390 é")


async def test_offsets_are_those_of_the_file_whatever_its_bytes(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Broken bytes, NUL and long lines, read live and read back as one scrolls up: each line's link
    names its first byte."""
    cluster = stack.sandbox.cluster
    request, container = await running_request(stack, user)
    odd = b"\xff\xfe odd \0 \xc3( " * 20
    written = b"".join(b"%06d " % n + odd + b"\n" for n in range(9000))
    written += b"long " + b"x" * 300_000 + b"\n" + b"".join(b"tail %d\n" % n for n in range(6000))
    await cluster.write_log(container, "stdout.txt", written)
    await cluster.finish(container)
    await open_page(page, stack, request.uuid, user)
    await page.get_by_role("tab", name="stdout.txt").click()
    await expect(page.locator("#log")).to_contain_text("tail 5999")
    await page.wait_for_function(
        """() => {
            const root = document.querySelector('#log > div').shadowRoot;
            root.querySelector('.cm-scroller').scrollTop = 0;
            const rows = [...root.querySelectorAll('.cm-line')];
            return rows.some(row => row.textContent.startsWith('00'));
        }""",
    )
    row = page.locator("#log .cm-line").filter(has_text=re.compile(r"^\d{6} ")).nth(5)
    await row.click()
    await page.wait_for_function("() => location.hash.includes('offset')")
    number = int((await page.locator("#log .picked").inner_text())[:6])
    offset = int(page.url.rpartition("offset=")[2])
    assert offset == number * (7 + len(odd) + 1)


async def test_the_attempt_that_failed_stays_in_sight(
    page: Page, stack: Stack, user: Actor
) -> None:
    """The next attempt is shown when it begins, and its former one is a click away, with what came
    of it later (docs/facts/arvados-demand.md W2, G12)."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("retried", owner=user, container_count_max=2)
    first = await cluster.run(request)
    await cluster.write_log(first, "stderr.txt", b"why it failed\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("why it failed")
    await expect(page.locator("#attempts")).to_be_hidden()
    await cluster.cancel(first)
    second = await cluster.run(request)
    await cluster.write_log(second, "stdout.txt", b"second\n")
    await expect(page.locator("#log .cm-line")).to_have_text("second")
    attempts = page.get_by_label("Attempt")
    await attempts.select_option("1")
    await expect(page.locator("#log .cm-line")).to_have_text("why it failed")
    await expect(page.locator("#line")).to_contain_text("Attempt 1 has ended")
    await attempts.select_option("2")
    await expect(page.locator("#log .cm-line")).to_have_text("second")


async def test_an_attempt_that_nobody_watched_can_be_read(
    page: Page, stack: Stack, user: Actor
) -> None:
    """The failed attempt is the one that people look for."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("retried", owner=user, container_count_max=2)
    first = await cluster.run(request)
    await cluster.write_log(first, "stderr.txt", b"why it failed\n")
    await cluster.checkpoint(first)
    await cluster.cancel(first)
    second = await cluster.run(request)
    await cluster.write_log(second, "stdout.txt", b"second\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log .cm-line")).to_have_text("second")
    await page.get_by_label("Attempt").select_option("1")
    await expect(page.locator("#log .cm-line")).to_have_text("why it failed")
    await page.get_by_label("Attempt").select_option("2")
    await expect(page.locator("#log .cm-line")).to_have_text("second")


@pytest.mark.parametrize(
    "text",
    ["print(type(b''))", "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "&amp;<b>x"],
)
async def test_what_looks_like_html_is_text(
    page: Page, stack: Stack, user: Actor, text: str
) -> None:
    """Shown as it was written, and does nothing (docs/facts/arvados-demand.md G13)."""
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    request, _ = await running_request(stack, user, text + "\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log .cm-line")).to_have_text(text)
    assert await page.locator("#log img, #log script").count() == 0
    assert not dialogs
    await page.locator("#sought").fill(text[:5])
    await expect(page.locator("#log .found")).to_have_text(text[:5])


async def test_seven_tabs_are_served(page: Page, stack: Stack, user: Actor) -> None:
    """A browser opens six connections to a server over HTTP/1.1; the seventh tab is live as well
    (docs/facts/arvados-demand.md G24)."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "before\n")
    tabs = [page, *[await page.context.new_page() for _ in range(6)]]
    for tab in tabs:
        await open_page(tab, stack, request.uuid, user)
        await expect(tab.locator("#log")).to_contain_text("before")
    await cluster.write_log(request, "stdout.txt", b"for all\n")
    for tab in tabs:
        await expect(tab.locator("#log")).to_contain_text("for all")


async def test_a_proxy_that_strips_upgrade_is_named(
    page: Page, stack: Stack, user: Actor, tmp_path: Path
) -> None:
    """Where no WebSocket is possible the page says so (docs/facts/arvados-demand.md G23)."""
    request, _ = await running_request(stack, user, "x\n")
    async with nginx.in_front(stack.page_url, tmp_path) as url:
        await page.goto(f"{url}/#request={request.uuid}&token={user.token}")
        await expect(page.locator("#line")).to_contain_text("does not forward WebSockets")
