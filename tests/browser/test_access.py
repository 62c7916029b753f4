# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The page for who sees little, or hears it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.browser.conftest import MODULE, SOON_MS
from tests.browser.test_page import WIDER, open_page, running_request, user

__all__ = ["user"]  # the fixture

AXE = MODULE.parent / "node_modules" / "axe-core" / "axe.min.js"
_RUN = """
async () => (await axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
})).violations.map(({id, nodes}) => [id, nodes.map(({html}) => html.slice(0, 120))])
"""


@pytest.fixture(params=["light", "dark"])
async def themed(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """A tab in either theme."""
    context = await browser.new_context(
        viewport={"width": 1440, "height": 900}, color_scheme=request.param
    )
    context.set_default_timeout(SOON_MS)
    yield await context.new_page()
    await context.close()


async def faults(page: Page) -> list[Any]:
    """What axe-core finds."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make web")
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[Any] = await page.evaluate(_RUN)
    return found


async def _colourful(stack: Stack, user: Actor) -> Record:
    cluster = stack.sandbox.cluster
    colours = "".join(f"\x1b[{n}m colour {n} \x1b[0m\n" for n in (*range(30, 38), *range(90, 98)))
    grounds = "".join(f"\x1b[37;{n}m ground {n} \x1b[0m\n" for n in (*range(40, 48), 100, 107))
    text = "".join(f"line {n:04d}\n" for n in range(6000)) + colours + grounds
    request, container = await running_request(stack, user, text)
    await cluster.write_log(request, "stderr.txt", b"ERROR: red\nWARNING: yellow\n")
    await cluster.write_log(request, "crunchstat.txt", _STATISTICS.encode())
    await cluster.progress(container, 0.4, error="Out of disk", errorDetail="/tmp is full")
    return request


_STATISTICS = "".join(
    f"2026-11-30T01:00:{n:02d}.000000000Z cpu 2.0 user 0.4 sys 20.00 cpus -- interval 10.0 seconds"
    f" {n % 3}.0 user 0.01 sys\n2026-11-30T01:00:{n:02d}.000000001Z mem 1 cache {n}000000 rss\n"
    for n in range(1, 60)
)


async def test_axe_finds_nothing(themed: Page, stack: Stack, user: Actor) -> None:
    """On each view, in the light and in the dark."""
    await themed.goto(stack.page_url)
    await expect(themed.locator("#enter")).to_be_visible()
    assert await faults(themed) == []
    request = await _colourful(stack, user)
    await open_page(themed, stack, request.uuid, user)
    await expect(themed.locator("#log")).to_contain_text("ground 107")
    await expect(themed.locator("#state .error")).to_be_visible()
    assert await faults(themed) == []
    await themed.locator("#sought").fill("line")
    await expect(themed.locator("#hits")).to_contain_text("6,000 lines")
    await themed.locator("#former").click()
    await themed.locator("#times").select_option("relative")
    await themed.locator("#plot").click()
    await expect(themed.locator("#plots canvas").first).to_be_visible()
    assert await faults(themed) == []
    await themed.locator("#help").click()
    await expect(themed.locator("#keys")).to_be_visible()
    assert await faults(themed) == []
    await themed.keyboard.press("Escape")
    await themed.locator("#home").click()
    await expect(themed.get_by_role("row").filter(has_text="watched").first).to_be_visible()
    assert await faults(themed) == []


async def test_axe_finds_nothing_where_there_is_no_log(
    themed: Page, stack: Stack, user: Actor
) -> None:
    """What waits, with the menu open, which goes with Escape; what failed, with its last lines, and
    on a phone with the tools open; what nobody may read."""
    cluster = stack.sandbox.cluster
    queued = await cluster.container_request("queued", owner=user)
    await open_page(themed, stack, queued.uuid, user)
    await expect(themed.locator("#none")).to_contain_text("queued")
    await themed.get_by_text("Open", exact=True).click()
    who = themed.locator("#who")
    await expect(who).to_have_text("You are logged in.")
    assert await faults(themed) == []
    await themed.keyboard.press("Escape")
    await expect(who).to_be_hidden()
    await expect(themed.locator("#opener summary")).to_be_focused()
    await themed.keyboard.press("Enter")
    await expect(who).to_be_visible()
    failed, container = await running_request(stack, user)
    await cluster.write_log(container, "stderr.txt", b"ERROR: no space left\n")
    await cluster.finish(container, exit_code=1)
    await open_page(themed, stack, failed.uuid, user)
    await expect(themed.get_by_label("Last lines of stderr.txt")).to_be_visible()
    assert await faults(themed) == []
    await themed.set_viewport_size({"width": 390, "height": 844})
    await themed.locator("#more").click()
    await expect(themed.locator("#state .facts")).to_be_visible()
    assert await faults(themed) == []
    secret = await cluster.container_request("secret", owner=await cluster.user("other"))
    await open_page(themed, stack, secret.uuid, user)
    await expect(themed.locator("#why")).to_contain_text("may not be read")
    await expect(themed.locator("#line")).to_be_empty()
    assert await faults(themed) == []


_NODE = (
    "2026-11-30T01:00:0{}.000000000Z cpu 9 user 1 sys 8 cpus -- interval 10.0 seconds 70.0 user"
    " 1.0 sys\n"
)


async def test_what_it_uses_is_a_table_too_and_workbench_a_link(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Memory against its limit and the node beside the container, for who cannot see the plots;
    the process, its output and its saved log lead into Workbench."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request(
        "measured", owner=user, runtime_constraints={"ram": 2**30, "vcpus": 4}
    )
    container = await cluster.run(request)
    await cluster.write_log(container, "crunchstat.txt", _STATISTICS.encode())
    await cluster.write_log(container, "hoststat.txt", "".join(map(_NODE.format, (1, 2))).encode())

    async def with_workbench(route: Route) -> None:
        answer = await route.fetch()
        told = {**await answer.json(), "workbench": "https://wb.example/"}
        await route.fulfill(response=answer, json=told)

    await page.route("**/v1/site", with_workbench)
    await open_page(page, stack, request.uuid, user)
    await expect(page.get_by_role("tab", name="hoststat.txt")).to_be_visible()
    await page.locator("#plot").click()
    await expect(page.locator("#plots canvas")).to_have_count(2)
    await page.locator("#plots summary").click()
    for name, most in (("memory", "59.0 MB"), ("memory limit", "1.1 GB"), ("node: cpu", "7.10")):
        row = page.get_by_role("rowheader", name=name, exact=True).locator("xpath=..")
        await expect(row.get_by_role("cell").last).to_have_text(most)
    await cluster.finish(container)
    reached = await cluster.reload(request)
    places = {
        "Workbench": f"processes/{request.uuid}",
        "Output": f"collections/{reached['output_uuid']}",
        "Saved log": f"collections/{reached['log_uuid']}",
    }
    for name, path in places.items():
        link = page.get_by_role("link", name=name, exact=True)
        await expect(link).to_have_attribute("href", f"https://wb.example/{path}")


async def test_new_lines_are_told_in_few_words(page: Page, stack: Stack, user: Actor) -> None:
    """A live region has what is new, not the whole window again."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "old\n" * 100)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#count")).to_contain_text("100 lines")
    for n in range(5):
        await cluster.write_log(request, "stdout.txt", f"new {n}\n".encode())
    await expect(page.locator("#news")).to_contain_text("new 4")
    assert "old" not in await page.locator("#news").inner_text()


@pytest.mark.parametrize(
    ("size", "above"),
    [
        ((1024, 768), 0.25),
        ((390, 844), 0.15),
        ((844, 390), 0.3),
        ((720, 450), 0.3),
        ((320, 256), 0.5),
    ],
)
async def test_a_phone_shows_more_log_than_header(
    page: Page, stack: Stack, user: Actor, size: tuple[int, int], above: float
) -> None:
    """Less than 15 % of a phone's height is above the log, and nothing is wider than the screen;
    also of a phone on its side, and where the browser makes all twice or four times as large."""
    request, _ = await running_request(stack, user, "x" * 300 + "\n")
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("xxx")
    box = await page.locator("#log").bounding_box()
    assert box is not None
    assert box["y"] < size[1] * above
    assert box["y"] + box["height"] <= size[1]
    assert await page.evaluate(WIDER) <= 0


async def test_a_key_reaches_what_a_phone_folds_away(page: Page, stack: Stack, user: Actor) -> None:
    """A line can be gone to with keys in a narrow window as well."""
    request, _ = await running_request(stack, user, "".join(f"line {n}\n" for n in range(300)))
    await page.set_viewport_size({"width": 390, "height": 844})
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("line 299")
    await page.get_by_role("tab", name="stdout.txt").click()
    await page.locator("#log .cm-content").focus()
    await page.keyboard.press(":")
    await page.keyboard.type("12")
    await page.keyboard.press("Enter")
    await expect(page.locator("#log .picked")).to_have_text("line 11")
