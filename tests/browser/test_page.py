# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The page to watch a container request: what a person sees of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from sandbox import running
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.running import Pace
from sandbox.stack import Stack

FIRST = """() => {
    const root = document.querySelector('#log > div').shadowRoot;
    const top = root.querySelector('.cm-scroller').getBoundingClientRect().top;
    return [...root.querySelectorAll('.cm-line')]
        .find(row => row.getBoundingClientRect().bottom > top + 1).textContent;
}"""
"""The first row that is on the screen."""
WIDER = """Math.max(...[document.documentElement, document.getElementById('watching'),
    document.getElementById('overview')].map(box => box.scrollWidth - box.clientWidth))"""
"""By how much something is wider than its place."""
STAMP = "2026-11-25T01:02:03.{:09d}Z "


@pytest.fixture
async def user(stack: Stack) -> AsyncIterator[Actor]:
    yield await stack.sandbox.cluster.user("watcher")


async def open_page(page: Page, stack: Stack, uuid: str, user: Actor, more: str = "") -> None:
    await page.goto(f"{stack.page_url}/#request={uuid}&token={user.token}{more}")


async def shown(page: Page) -> list[str]:
    """The rows on the screen, top to bottom, without zero-width marks of the view."""
    return [
        text.replace("\u200b", "") for text in await page.locator("#log .cm-line").all_inner_texts()
    ]


async def running_request(stack: Stack, user: Actor, *lines: str) -> tuple[Record, Record]:
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("watched", owner=user)
    container = await cluster.run(request)
    for line in lines:
        await cluster.write_log(request, "stdout.txt", line.encode())
    return request, container


async def test_history_and_live_appear_in_order_without_seam(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Lines written before the page opened and after it, each once, in order."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "".join(f"old {n}\n" for n in range(50)))
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("old 49")
    for n in range(50):
        await cluster.write_log(request, "stdout.txt", f"new {n}\n".encode())
    await expect(page.locator("#log")).to_contain_text("new 49")
    await expect(page.locator("#count")).to_contain_text("100 lines")
    lines = await shown(page)
    assert (
        lines == [*(f"old {n}" for n in range(50)), *(f"new {n}" for n in range(50))][-len(lines) :]
    )


async def test_state_follows_the_container_to_its_end(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Queued, Running, and failed with the exit code: no reload."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("short", owner=user)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#heading h1")).to_have_text("short")
    await expect(page.locator("#verdict")).to_contain_text("Queued")
    await running.run(cluster, request, Pace(lines=40, per_second=40, statistics=0.5, exit_code=3))
    await expect(page.locator("#verdict")).to_contain_text("Failed exit code 3")
    await expect(page.locator("#line")).to_contain_text("complete")
    assert await page.title() == "Failed: short"


async def test_the_token_does_not_stay_in_the_address(
    page: Page, stack: Stack, user: Actor
) -> None:
    """It is taken out at once, kept for the tab, and in no log of ours."""
    request, _ = await running_request(stack, user, "x\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("x")
    assert user.token not in page.url
    assert request.uuid in page.url
    await page.reload()
    await expect(page.locator("#log")).to_contain_text("x")
    secret = user.token.split("/")[2]
    assert secret not in stack.output


async def test_a_wrong_token_is_told_in_words(page: Page, stack: Stack, user: Actor) -> None:
    """And nobody connects again and again with it."""
    request, _ = await running_request(stack, user, "x\n")
    await page.goto(f"{stack.page_url}/#request={request.uuid}&token=undefined")
    await expect(page.locator("#line")).to_contain_text("Stopped")


async def test_files_are_tabs_and_a_merged_view(page: Page, stack: Stack, user: Actor) -> None:
    """Merged by time stamp without changing the order of any file; a tab shows its file alone."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user)
    out = STAMP.format(1) + "out 1\n" + STAMP.format(3) + "out 3\n" + "no stamp\n"
    err = STAMP.format(2) + "err 2\n" + STAMP.format(4) + "err 4\n"
    await cluster.write_log(request, "stdout.txt", out.encode())
    await cluster.write_log(request, "stderr.txt", err.encode())
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("err 4")
    await expect(page.locator("#log")).to_contain_text("no stamp")
    merged = await shown(page)
    assert merged == ["out 1", "err 2", "out 3", "no stamp", "err 4"]
    await page.get_by_role("tab", name="stderr.txt").click()
    await expect(page.locator("#log .cm-line")).to_have_count(2)


async def test_following_can_be_left_and_taken_up(page: Page, stack: Stack, user: Actor) -> None:
    """Scrolled up, the view stays where it is while lines come; Follow goes to the end again
    (docs/facts/arvados-demand.md 2, "auto-follow cannot be left")."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "".join(f"line {n}\n" for n in range(500)))
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("line 499")
    follow = page.locator("#follow")
    await expect(follow).to_have_attribute("aria-pressed", "true")
    scroller = page.locator("#log .cm-scroller")
    await scroller.evaluate("log => { log.scrollTop = 2000; }")
    await expect(follow).to_have_attribute("aria-pressed", "false")
    before = await page.evaluate(FIRST)
    await cluster.write_log(request, "stdout.txt", b"the newest\n")
    await expect(page.locator("#count")).to_contain_text("501 lines")
    assert await page.evaluate(FIRST) == before
    await follow.click()
    await expect(page.locator("#log")).to_contain_text("the newest")


async def test_find_counts_marks_and_goes_there(page: Page, stack: Stack, user: Actor) -> None:
    """All lines are searched, not only those on screen."""
    lines = "".join(f"line {n} {'needle' if n % 100 == 7 else ''}\n" for n in range(1000))
    request, _ = await running_request(stack, user, lines)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("line 999")
    await page.locator("#sought").fill("NEEDLE")
    await expect(page.locator("#hits")).to_have_text("10 lines")
    await page.locator("#sought").press("Enter")
    await expect(page.locator("#log .picked")).to_have_text("line 7 needle")
    await expect(page.locator("#hits")).to_have_text("1 of 10 lines")
    await expect(page.locator("#log .found").first).to_have_text("needle")


async def test_colours_survive_chunk_borders(page: Page, stack: Stack, user: Actor) -> None:
    """An escape sequence that is cut in two, and a colour that goes on in the next line."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "plain \x1b[3")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log .cm-line")).to_have_count(1)
    await cluster.write_log(request, "stdout.txt", b"1mred\nstill red\x1b[0m plain\n")
    await page.get_by_role("tab", name="stdout.txt").click()
    await expect(page.locator("#log .cm-line")).to_have_count(2)
    assert [await coloured(page, row) for row in range(2)] == [
        [["plain ", False], ["red", True]],
        [["still red", True], [" plain", False]],
    ]


async def coloured(page: Page, row: int) -> list[list[object]]:
    """Pieces of a row, and whether they are in another colour than plain text."""
    found: list[list[object]] = (
        await page.locator("#log .cm-line")
        .nth(row)
        .evaluate(
            """row => [...row.childNodes].map(piece => [piece.textContent,
            piece.nodeType === 1
                && getComputedStyle(piece).color !== getComputedStyle(row).color])"""
        )
    )
    return found


async def test_progress_lines_show_what_a_terminal_would(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Carriage returns rewrite the line."""
    request, _ = await running_request(stack, user, "10 %\r50 %\r99 %\rdone\n", "1\r2\r")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log .cm-line")).to_have_text(["done", "2"])


async def test_long_lines_do_not_scroll_sideways(page: Page, stack: Stack, user: Actor) -> None:
    """130 kB in one line are broken at the width of the view (docs/facts/arvados-demand.md A38)."""
    request, _ = await running_request(stack, user, "x" * 130_000 + "END\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("END")
    sizes = await page.locator("#log .cm-scroller").evaluate(
        "log => [log.scrollWidth, log.clientWidth]"
    )
    assert sizes[0] == sizes[1]


async def test_a_long_log_keeps_the_document_small(page: Page, stack: Stack, user: Actor) -> None:
    """8 MB in 200,000 lines: the newest are shown at once, and the rest is read as one scrolls up
    (docs/facts/arvados-demand.md G18)."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user)
    text = "".join(f"line {n:07d} {'.' * 27}\n" for n in range(200_000))
    await cluster.write_log(request, "stdout.txt", text.encode())
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("line 0199999")
    await page.get_by_role("tab", name="stdout.txt").click()
    assert await page.locator("#log .cm-line").count() < 200
    top = await first_number(page)
    for _ in range(10):
        top = await scroll_up(page, top)
    assert top < 185_000
    assert await page.locator("#log .cm-line").count() < 200


async def first_number(page: Page) -> int:
    """The number in the first numbered row that is on the screen."""
    rows = page.locator("#log .cm-line").filter(has_text=re.compile(r"^(line )?\d+"))
    found = re.search(r"\d+", await rows.first.inner_text())
    assert found
    return int(found[0])


async def scroll_up(page: Page, before: int) -> int:
    """Scroll to the top of what is loaded until older lines are there; the first one's number."""
    await page.wait_for_function(
        """before => {
            const root = document.querySelector('#log > div').shadowRoot;
            const scroller = root.querySelector('.cm-scroller');
            scroller.scrollTop = 0;
            scroller.dispatchEvent(new WheelEvent('wheel', {deltaY: -100}));
            const found = [...root.querySelectorAll('.cm-line')]
                .map(row => /^(?:line )?(\\d+)/.exec(row.textContent)).find(Boolean);
            return found && Number(found[1]) < before;
        }""",
        arg=before,
    )
    return await first_number(page)


async def test_a_retry_is_followed(page: Page, stack: Stack, user: Actor) -> None:
    """The second container's log replaces the first one's; the page says which attempt it is."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("retried", owner=user, container_count_max=2)
    await cluster.run(request)
    await cluster.write_log(request, "stdout.txt", b"first attempt, quite long\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("first attempt")
    await cluster.cancel(await cluster.container_of(request))
    await cluster.run(request)
    await cluster.write_log(request, "stdout.txt", b"second\n")
    await expect(page.locator("#log")).to_contain_text("second")
    assert await shown(page) == ["second"]
    await expect(page.locator("#line")).to_contain_text("Attempt 2")


async def test_a_lost_line_is_taken_up_again(page: Page, stack: Stack, user: Actor) -> None:
    """Offline and back, and the proxy restarted with the tab open: nothing is missing and nothing
    comes twice (docs/facts/arvados-demand.md W7, G5)."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "one\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("one")
    await page.context.set_offline(True)
    await expect(page.locator("#line")).to_contain_text("No connection since")
    await cluster.write_log(request, "stdout.txt", b"two\n")
    await page.context.set_offline(False)
    await expect(page.locator("#log")).to_contain_text("two")
    await expect(page.locator("#line")).not_to_contain_text("No connection")
    proxy = stack.services["wsproxy"]
    await proxy.kill()
    await cluster.write_log(request, "stdout.txt", b"three\n")
    await proxy.start()
    await cluster.write_log(request, "stdout.txt", b"four\n")
    await expect(page.locator("#log")).to_contain_text("four")
    assert await shown(page) == ["one", "two", "three", "four"]
