# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How a process is, as people ask: why it waits, why it failed, when it is over."""

from __future__ import annotations

from playwright.async_api import Page, expect

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.browser.test_page import open_page, running_request, user

__all__ = ["user"]  # the fixture

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
    await expect(page.locator("#none")).to_have_text(
        "It has not begun: queued. Lines appear here once it runs."
    )


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
