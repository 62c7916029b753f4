# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How a process is, as people ask: why it waits, why it failed, when it is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial

import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.browser.test_page import WIDER, open_page, running_request, user
from tests.browser.test_pictures import with_gap

__all__ = ["user"]  # the fixture

TURNS = "\u202e"
"""Turns the text behind it around."""

_NOTES = """
window.Notification = class extends Notification {
    constructor(title, options) { super(title, options); console.log(title); }
};
"""
"""What the browser is asked to tell, said at its console, too."""


async def test_what_waits_says_what_it_needs(page: Page, stack: Stack, user: Actor) -> None:
    """Queued since when, with which priority, and what a node must have; how long it is, is said
    where it is kept up to date."""
    request = await stack.sandbox.cluster.container_request(
        "large", owner=user, runtime_constraints={"ram": 64 * 10**9, "vcpus": 16}
    )
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#verdict")).to_contain_text("priority 500")
    needs = page.locator("#state .fact").filter(has_text="needs")
    await expect(needs).to_contain_text("16 cores, 64.0 GB of memory")
    await page.set_viewport_size({"width": 390, "height": 844})
    await expect(needs).to_be_visible()
    await page.set_viewport_size({"width": 1100, "height": 700})
    await expect(page.locator("#none")).to_have_text(
        "It has not begun: queued. Lines appear here once it runs."
    )


async def test_each_reason_to_wait_is_said(page: Page, stack: Stack, user: Actor) -> None:
    """On hold, queued, being started, being cancelled: as it goes on, at the process and in the
    list."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("patient", owner=user, priority=0)
    listed = await page.context.new_page()
    await listed.goto(f"{stack.page_url}/#token={user.token}")
    row = listed.get_by_role("row").filter(has_text="patient")

    async def said(word: str) -> None:
        await expect(page.locator("#verdict")).to_contain_text(word)
        await expect(row).to_contain_text(word.partition(" its")[0])

    await open_page(page, stack, request.uuid, user)
    await said("On hold its priority is 0")
    await expect(page.locator("#none")).to_contain_text("on hold")
    await cluster.update(request, {"priority": 10}, user)
    await said("Queued")
    await expect(page.locator("#verdict")).to_contain_text("priority 10")
    await cluster.lock(await cluster.container_of(request), cluster.root)
    await said("Starting")
    await cluster.run(request)
    await said("Running")
    none = page.locator("#none")
    await expect(none).to_contain_text("Nothing has been logged yet")
    await cluster.cancel_request(request, by=user)
    await expect(page.locator("#verdict")).to_contain_text("being cancelled")
    await cluster.cancel(request)
    await said("Cancelled")
    await expect(none).to_have_text("Nothing has been logged.")


async def test_what_it_cost_is_said(page: Page, stack: Stack, user: Actor) -> None:
    """At the process and in the list, alike, and also less than a cent."""
    cluster = stack.sandbox.cluster
    request, container = await running_request(stack, user)
    await cluster.update(container, {"cost": 0.0034}, cluster.root)
    await open_page(page, stack, request.uuid, user)
    cost = page.locator("#state .fact").filter(has_text="cost")
    await expect(cost).to_contain_text("0.0034")
    await cluster.finish(container, cost=1234.567)
    await expect(cost).to_contain_text("1,234.57")
    await page.locator("#home").click()
    link = page.locator(f"a[href*='{request.uuid}']")
    row = page.get_by_role("row").filter(has=link)
    await expect(row.get_by_role("cell").last).to_have_text("1,234.57")


async def test_what_is_being_read_is_said(page: Page, stack: Stack, user: Actor) -> None:
    """While lines are on their way, nobody is told that there are none."""
    request, _ = await running_request(stack, user, "hello\n")
    kept: list[Callable[[], None]] = []
    let = asyncio.Event()

    def slowly(line: WebSocketRoute) -> None:
        server = line.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if let.is_set() or not {"log", "caught_up"} & set(json.loads(message)):
                line.send(message)
            else:
                kept.append(partial(line.send, message))

        server.on_message(pass_on)
        line.on_message(server.send)

    await page.route_web_socket("**/v1/stream", slowly)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#verdict")).to_contain_text("Running")
    await expect(page.locator("#count")).to_have_text("loading …")
    await expect(page.locator("#none")).to_be_hidden()
    let.set()
    for send in kept:
        send()
    await expect(page.locator("#count")).to_contain_text("1 line")


async def test_what_failed_shows_what_it_wrote_last(page: Page, stack: Stack, user: Actor) -> None:
    """The last lines of stderr stand with the state, wherever they are in the log."""
    cluster = stack.sandbox.cluster
    request, container = await running_request(stack, user)
    said = "".join(f"2026-11-30T01:00:{n:02d}Z step {n}\n" for n in range(9)) + "\n"
    await cluster.write_log(container, "stderr.txt", said.encode())
    later = "".join(f"2026-11-30T02:00:{n % 60:02d}Z copying {n}\n" for n in range(500))
    await cluster.write_log(container, "crunch-run.txt", later.encode())
    await cluster.finish(container, exit_code=3)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#verdict")).to_contain_text("Failed exit code 3")
    last = page.get_by_label("Last lines of stderr.txt")
    await expect(last).to_have_text("step 4\nstep 5\nstep 6\nstep 7\nstep 8")
    await expect(page.locator("#state .fact").filter(has_text="ended")).to_be_visible()


async def test_only_what_changed_is_drawn(page: Page, stack: Stack, user: Actor) -> None:
    """While seconds pass, what has the focus or is opened stays, at the process and in the list."""
    cluster = stack.sandbox.cluster
    request, container = await running_request(stack, user)
    await cluster.progress(container, 0.1, warning="slow", warningDetail="much to say")
    await open_page(page, stack, request.uuid, user)
    await page.locator("#state summary").click()
    ran = page.locator("#state .fact").filter(has_text="ran")
    before = await ran.inner_text()
    await expect(ran).not_to_have_text(before)
    await cluster.progress(container, 0.2, warning="slower", warningDetail="much to say")
    await expect(page.locator("#state .warning")).to_contain_text("slower")
    await expect(page.locator("#state summary")).to_be_focused()
    await expect(page.locator("#state pre")).to_be_visible()

    await page.locator("#home").click()
    link = page.get_by_role("link", name="watched").first
    await link.evaluate("link => { link.seen = true; link.focus(); }")
    await cluster.progress(container, 0.3)
    await cluster.container_request("newer", owner=user)
    await expect(page.get_by_role("row").nth(1)).to_contain_text("newer")
    assert await link.evaluate("link => link.seen && link === document.activeElement")


async def test_who_asks_for_it_is_told_the_end(page: Page, stack: Stack, user: Actor) -> None:
    """By a notification of the browser, at the process as in the list, once."""
    cluster = stack.sandbox.cluster
    await page.context.grant_permissions(["notifications"])
    await page.add_init_script(_NOTES)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    request, container = await running_request(stack, user)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#verdict")).to_contain_text("Running")
    await page.get_by_label("Tell me at the end").check()
    async with page.expect_console_message():
        await cluster.finish(container, exit_code=4)
    assert said == ["Failed: watched"]

    other, container = await running_request(stack, user)
    await page.locator("#home").click()
    await expect(page.get_by_label("Tell me when one is over")).to_be_checked()
    row = page.get_by_role("row").filter(has=page.locator(f"a[href*='{other.uuid}']"))
    await expect(row).to_contain_text("Running")
    async with page.expect_console_message():
        await cluster.finish(container)
    assert said == ["Failed: watched", "Done: watched"]


async def test_a_link_is_told_without_a_clipboard(page: Page, stack: Stack, user: Actor) -> None:
    """Pages that come by http have none: the address bar has the link, and the page says so."""
    await page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    request, _ = await running_request(stack, user, "hello\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("hello")
    await page.get_by_role("button", name="Copy link").click()
    await expect(page.locator("#line")).to_have_text("The link is in the address bar.")


async def test_what_is_over_is_not_followed(page: Page, stack: Stack, user: Actor) -> None:
    """The end says once whether all is there, Follow becomes End, and no progress is shown; the
    next attempt is followed."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("over", owner=user, container_count_max=2)
    first = await cluster.run(request)
    await cluster.progress(first, 0.5)
    await cluster.write_log(first, "stdout.txt", b"hello\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("hello")
    await expect(page.get_by_role("progressbar")).to_have_attribute("value", "0.5")
    await cluster.cancel(first)
    second = await cluster.run(request)
    await cluster.write_log(second, "stdout.txt", b"again\n")
    await expect(page.locator("#log")).to_contain_text("again")
    follow = page.locator("#follow")
    await expect(follow).to_have_text("Follow")
    await cluster.finish(second)
    await expect(page.locator("#line")).to_have_text("Attempt 2 is complete, as saved.")
    await expect(follow).to_have_text("End")
    await expect(follow).to_have_attribute("aria-pressed", "false")
    await expect(page.get_by_role("progressbar")).to_have_count(0)
    await expect(page.locator("#telling")).to_be_hidden()
    await page.locator("#attempts select").select_option("1")
    await expect(page.locator("#line")).to_have_text(
        "Attempt 1 has ended; no saved log confirms that this is all of it."
    )


async def test_a_gap_is_told_as_long_as_one_looks(page: Page, stack: Stack, user: Actor) -> None:
    """With the state, where no later word takes its place; nothing is cut of it."""
    cluster = stack.sandbox.cluster
    request, container = await running_request(stack, user, "hello\n")
    await page.route_web_socket("**/v1/stream", with_gap)
    await open_page(page, stack, request.uuid, user)
    gap = page.locator("#state .warning").filter(has_text="Missing in the log: 72.0 kB of stdout")
    await expect(gap).to_contain_text("the stream no longer has these bytes")
    await cluster.finish(container)
    await expect(page.locator("#line")).to_contain_text("complete")
    await expect(gap).to_be_visible()


async def test_what_people_name_acts_on_nobody(page: Page, stack: Stack, user: Actor) -> None:
    """In a name or a warning, what would turn text around is seen; however long they are, and the
    name of a file, nothing is wider than the screen."""
    cluster = stack.sandbox.cluster
    name = f"{TURNS}long" + "name" * 60
    request = await cluster.container_request(name, owner=user)
    container = await cluster.run(request)
    await cluster.progress(container, 0.1, warning=f"{TURNS}so " + "long" * 400)
    await cluster.write_log(container, f"{'file' * 30}.txt", b"hello\n")
    await cluster.write_log(container, "stderr.txt", b"hello\n")
    for size in (1100, 390):
        await page.set_viewport_size({"width": size, "height": 700})
        await open_page(page, stack, request.uuid, user)
        await expect(page.locator("#heading h1")).to_contain_text("<U+202E>long")
        await expect(page.locator("#state .warning")).to_contain_text("<U+202E>so")
        await expect(page.get_by_role("tab").filter(has_text="filefile")).to_be_attached()
        await page.locator("#files button").nth(1).click()
        await expect(page.locator("#log .names")).to_contain_text("filefile")
        assert TURNS not in await page.title()
        assert await page.evaluate(WIDER) <= 0
        await page.locator("#home").click()
        await expect(page.get_by_role("link").filter(has_text="<U+202E>long")).to_be_visible()
        assert await page.evaluate(WIDER) <= 0


@pytest.mark.parametrize("name", ["\u200b\u2060", "\u3164", "  ", "<b>x</b>", "אבג", "👩\u200d💻"])
async def test_every_name_is_one_to_click(page: Page, stack: Stack, user: Actor, name: str) -> None:
    """One in which nothing is seen has the uuid in its place; others are as they are."""
    request = await stack.sandbox.cluster.container_request(name, owner=user, by=user)
    shown = name if name[0] in "<א👩" else request.uuid
    await page.goto(f"{stack.page_url}/#token={user.token}")
    link = page.locator(f"a[href*='{request.uuid}']")
    await expect(link).to_have_text(shown)
    await link.click()
    await expect(page.locator("#heading h1")).to_have_text(shown)
    assert await page.title() == f"Queued: {shown}"


async def test_plots_are_of_the_attempt_that_is_shown(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Opened before there are statistics, they come with these; the next attempt has its own."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("plotted", owner=user, container_count_max=2)
    first = await cluster.run(request)
    await cluster.write_log(first, "stderr.txt", b"hello\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("hello")
    await page.locator("#plot").click()
    await expect(page.locator("#plots")).to_contain_text("no statistics yet")
    await cluster.write_log(first, "crunchstat.txt", _used(7))
    await expect(page.locator("#plots canvas").first).to_be_visible()
    figures = page.locator("#plots tbody")
    await page.locator("#plots summary").click()
    await expect(figures).to_contain_text("0.70")
    await cluster.cancel(first)
    second = await cluster.run(request)
    await cluster.write_log(second, "stderr.txt", b"again\n")
    await expect(page.locator("#log")).to_contain_text("again")
    await expect(page.locator("#plots")).to_contain_text("no statistics yet")
    await cluster.write_log(second, "crunchstat.txt", _used(3))
    await page.locator("#plots summary").click()
    await expect(figures).to_contain_text("0.30")


def _used(seconds: int) -> bytes:
    """Statistics of a processor, a row each ten seconds."""
    row = "2026-11-30T01:{:02d}:00.000000000Z cpu 9 user 1 sys 8 cpus -- interval 10.0 seconds"
    return "".join(f"{row.format(n)} {seconds}.0 user 0.0 sys\n" for n in range(5)).encode()
