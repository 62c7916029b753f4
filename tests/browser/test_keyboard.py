# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The page for who has no mouse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from playwright.async_api import Page, Route, expect

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.browser.test_page import open_page, running_request, user

__all__ = ["user"]  # the fixture


async def test_all_is_done_with_keys(page: Page, stack: Stack, user: Actor) -> None:
    """No mouse: from the list to a log, through it, found, filtered, timed, and back: each key that
    the page tells of."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("typist")
    text = "".join(f"line {n:04d}{' needle' if n % 1000 == 0 else ''}\n" for n in range(6000))
    request, container = await running_request(stack, user, text)
    await cluster.write_log(request, "stderr.txt", b"ERROR: no\n")
    pressed: set[str] = set()

    async def press(key: str) -> None:
        pressed.add(key)
        await page.keyboard.press(key)

    await page.goto(f"{stack.page_url}/#token={user.token}")
    row = page.get_by_role("row").filter(has_text="watched")
    await expect(row).to_be_visible()
    await press("/")
    await page.keyboard.type("nothing")
    await expect(row).to_have_count(0)
    await press("Control+a")
    await page.keyboard.type("watched")
    await expect(row).to_be_visible()
    await press("Tab")
    await press("d")
    await expect(page.get_by_role("combobox", name="State")).to_have_value("good")
    await expect(row).to_have_count(0)
    await press("Home")
    await expect(row).to_be_visible()
    await page.get_by_role("link", name="watched").focus()
    await press("Enter")
    log = page.locator("#log")
    await expect(log).to_contain_text("line 5999")
    await page.locator("#log .cm-content").focus()
    await press("Shift+Home")
    await press("Enter")  # on the hole before the first line
    await expect(page.locator("#count")).to_contain_text("6,001 lines")
    await press("/")
    await page.keyboard.insert_text("needle")  # at once: nothing is counted for a part of it
    await expect(page.locator("#hits")).to_contain_text("6 lines")
    await press("Enter")
    await expect(page.locator("#log .picked")).to_have_text("line 0000 needle")
    await page.locator("#log .cm-content").focus()
    await press("n")
    await expect(page.locator("#log .picked")).to_have_text("line 1000 needle")
    await press("b")
    await expect(log).to_contain_text("line 0000")
    await press("e")
    await expect(page.locator("#log .cm-line")).to_have_text(["ERROR: no"])
    await press("e")
    await press("t")
    await expect(page.locator("#times")).to_have_value("relative")
    await press("]")
    await press("]")
    await expect(page.get_by_role("tab", name="stderr.txt")).to_have_attribute(
        "aria-selected", "true"
    )
    await page.get_by_role("tab", name="stderr.txt").focus()
    await press("ArrowRight")
    await expect(page.get_by_role("tab", name="stdout.txt")).to_be_focused()
    await press(":")
    await page.keyboard.type("3001")
    await press("Enter")
    await expect(page.locator("#log .picked")).to_have_text("line 3000 needle")
    await page.locator("#log .cm-content").focus()
    await press("End")
    await expect(log).to_contain_text("line 5999")
    await expect(page.locator("#follow")).to_have_attribute("aria-pressed", "true")
    await press("N")
    await expect(page.locator("#log .picked")).to_have_text("line 5000 needle")
    await press("l")
    await expect(page.locator("#line")).to_contain_text("link")
    assert "offset=" in page.url
    await press("f")
    await expect(page.locator("#follow")).to_have_attribute("aria-pressed", "true")
    await press("w")
    await expect(page.locator("#wrap")).not_to_be_checked()
    size = "getComputedStyle(document.querySelector('#log > div')).getPropertyValue('--log-size')"
    before = await page.evaluate(size)
    await press("+")
    assert await page.evaluate(size) != before
    await press("-")
    assert await page.evaluate(size) == before
    await press("p")
    await expect(page.locator("#plots")).to_contain_text("no statistics")
    for key, name in (("d", "stdout.txt"), ("D", f"{container.uuid}-logs.tar")):
        async with page.expect_download() as started:
            await press(key)
        assert (await started.value).suggested_filename == name
    await press("[")
    await expect(page.get_by_role("tab", name="stderr.txt")).to_have_attribute(
        "aria-selected", "true"
    )
    request, _ = await running_request(stack, user, "a line of a long log\n" * 100_000)
    await open_page(page, stack, request.uuid, user)
    await _is_stopped(page, press)
    await press("?")
    await expect(page.locator("#keys")).to_contain_text("find in the whole log")
    told = await page.locator("#keys kbd").all_inner_texts()
    assert {key for key in told if " " not in key} <= pressed
    await press("Escape")
    await expect(page.locator("#keys")).to_be_hidden()


async def _is_stopped(page: Page, press: Callable[[str], Awaitable[None]]) -> None:
    """A search that takes long: the server does not answer."""

    async def held(route: Route) -> None:
        pass

    await page.route("**/v1/search**", held)
    await expect(page.locator("#count")).to_contain_text("2,000 lines")
    await press("/")
    await page.keyboard.insert_text("elsewhere")
    await expect(page.locator("#stop")).to_be_visible()
    hits = page.locator("#hits")
    await expect(hits).to_have_attribute("aria-busy", "true")  # counts on the way are not read out
    await page.locator("#log .cm-content").focus()
    await press("Escape")
    await expect(page.locator("#stop")).to_be_hidden()
    await expect(hits).to_have_attribute("aria-busy", "false")
    await expect(page.locator("#hits")).to_contain_text("in the part that was searched")


_CONTROLS = """
() => {
    const kinds = "a[href], button, input, select, summary, [tabindex='0']";
    window.controls = [...document.querySelectorAll(kinds)].filter(one => !one.disabled
        && one.checkVisibility({visibilityProperty: true})
        && (one.role !== "tab" || one.tabIndex === 0));
    document.activeElement.blur();
    return controls.map(one => one.id || one.outerHTML.slice(0, 80));
}
"""
_FOCUSED = "controls.indexOf(document.activeElement)"


async def reached(page: Page) -> None:
    """Each control that is to be seen has the focus after some tabulators."""
    names: list[str] = await page.evaluate(_CONTROLS)
    left = dict(enumerate(names))
    for _ in range(2 * len(names) + 10):
        await page.keyboard.press("Tab")
        left.pop(int(await page.evaluate(_FOCUSED)), None)
        if not left:
            return
    assert not left, "these are out of reach"


async def test_each_control_is_reached_without_a_mouse(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Where one logs in, in the list, at a process that was tried twice, with plots and with the
    menu open, and on a phone with its tools."""
    cluster = stack.sandbox.cluster
    await page.goto(stack.page_url)
    await expect(page.locator("#enter")).to_be_visible()
    await reached(page)
    project = await cluster.project("Reachable", owner=user)
    request = await cluster.container_request(
        "tried twice", owner=project, by=user, container_count_max=2
    )
    await cluster.cancel(await cluster.run(request))
    container = await cluster.run(request)
    await cluster.write_log(container, "stderr.txt", b"hello\n")
    await cluster.write_log(container, "stdout.txt", b"hello\n")
    await cluster.progress(container, 0.1, warning="slow", warningDetail="much to say")
    await page.goto(f"{stack.page_url}/#token={user.token}")
    await expect(page.get_by_role("row").filter(has_text="tried twice")).to_be_visible()
    await reached(page)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#attempts select")).to_be_visible()
    await expect(page.get_by_role("tab", name="stdout.txt")).to_be_visible()
    await page.locator("#plot").click()
    await page.get_by_text("Open", exact=True).click()
    await reached(page)
    await page.keyboard.press("Escape")
    await expect(page.locator("details[open] > summary", has_text="Open")).to_have_count(0)
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.locator("#more").click()
    await reached(page)
