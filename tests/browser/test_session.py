# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How one gets in, and the list of processes that one finds there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Dialog, Page, Route, WebSocketRoute, expect

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.browser.test_page import running_request, user
from tests.support.fronts import nginx

__all__ = ["user"]  # the fixture

_AGAIN_MS = 10_000
"""After so long the page asks for its list again where nobody tells what changes."""
GUIDE = Path(__file__).parents[2] / "docs/page.md"


@pytest.fixture
async def tab(browser: Browser) -> AsyncIterator[Page]:
    """A tab that believes the pretend Arvados' certificate."""
    context = await browser.new_context(ignore_https_errors=True)
    yield await context.new_page()
    await context.close()


async def test_a_click_logs_in_and_another_one_out(tab: Page, stack: Stack, user: Actor) -> None:
    """At Arvados, which leads back to what was wanted; the token stays neither in the address nor
    in the history, and Arvados forgets it at the end."""
    backend = stack.sandbox.backend
    backend.login_token = user.token
    backend.trusted_clients.add(stack.page_url)
    request, _ = await running_request(stack, user, "hello\n")
    await tab.goto(f"{stack.page_url}/#request={request.uuid}")
    await expect(tab.locator("#why")).to_have_text(f"To see {request.uuid}, log in.")
    await tab.get_by_role("button", name="Log in at Arvados").click()
    await expect(tab.locator("#log")).to_contain_text("hello")
    assert tab.url == f"{stack.page_url}/#request={request.uuid}"
    await tab.reload()
    await expect(tab.locator("#log")).to_contain_text("hello")
    await tab.get_by_text("Open", exact=True).click()
    await tab.get_by_role("button", name="Log out").click()
    await expect(tab.locator("#why")).to_have_text("Log in to see your processes.")
    assert user.token not in tab.url
    expired = await backend.value(
        "SELECT expires_at < clock_timestamp() AT TIME ZONE 'UTC' FROM api_client_authorizations"
        " WHERE uuid = $1",
        user.token_uuid,
    )
    assert expired


async def test_who_would_not_be_led_back_is_told_why(tab: Page, stack: Stack, user: Actor) -> None:
    """Before the browser is sent to where it would stay."""
    url = stack.page_url.replace("127.0.0.1", "localhost")
    await tab.goto(f"{url}/")
    await tab.get_by_role("button", name="Log in at Arvados").click()
    told = tab.get_by_role("alert")
    await expect(told).to_contain_text(f"add {url} to Login.TrustedClients")
    assert tab.url == f"{url}/"


async def test_below_workbench_nobody_logs_in_twice(
    tab: Page, stack: Stack, user: Actor, tmp_path: Path
) -> None:
    """With the nginx of docs/page.md in front the page takes Workbench's token, works below its
    prefix, plots and finds there, and the bookmark leads from a process to its log."""
    guide = GUIDE.read_text(encoding="utf-8")
    location = "".join(re.findall(r"```nginx\n(.*?)```", guide, re.DOTALL))
    bookmark = re.findall(r"`javascript:(.*?)`", guide)[0]
    inside = location.replace("http://127.0.0.1:8000", stack.page_url) + (
        'location /processes/ { default_type text/html; return 200 "<title>Workbench</title>"; }'
    )
    request, _ = await running_request(stack, user, "hello\n")
    async with nginx.in_front(stack.page_url, tmp_path, inside=inside) as workbench:
        await tab.goto(f"{workbench}/processes/{request.uuid}")
        await tab.evaluate("token => localStorage.setItem('apiToken', token)", user.token)
        await tab.evaluate(bookmark)
        await expect(tab.locator("#log")).to_contain_text("hello")
        assert tab.url == f"{workbench}/live/#request={request.uuid}"
        await tab.locator("#sought").fill("hello")
        await expect(tab.locator("#hits")).to_have_text("1 line")
        await tab.locator("#home").click()
        await expect(tab.get_by_role("link", name="watched").first).to_be_visible()


@pytest.mark.parametrize("agrees", [False, True])
async def test_a_link_replaces_a_login_only_if_one_agrees(
    page: Page, stack: Stack, user: Actor, agrees: bool
) -> None:
    """Whoever sends a link cannot log somebody in as themselves unseen (S15)."""
    other = await stack.sandbox.cluster.user("other")
    asked: list[str] = []

    async def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await (dialog.accept() if agrees else dialog.dismiss())

    page.on("dialog", answer)
    await page.goto(f"{stack.page_url}/#token={user.token}")
    await page.goto(f"{stack.page_url}/?api_token={other.token}")
    await expect(page).to_have_url(f"{stack.page_url}/")
    kept = await page.evaluate("sessionStorage.getItem('token')")
    assert (kept, len(asked)) == (other.token if agrees else user.token, 1)


async def test_an_address_in_workbench_opens_its_process(
    page: Page, stack: Stack, user: Actor
) -> None:
    """What people have at hand; not only the uuid in it."""
    request, _ = await running_request(stack, user, "hello\n")
    await page.goto(f"{stack.page_url}/#token={user.token}")
    await page.get_by_text("Open", exact=True).click()
    await page.locator("#uuid").fill(f" https://workbench.example/processes/{request.uuid}?tab=1")
    await page.get_by_role("button", name="Watch").click()
    await expect(page.locator("#log")).to_contain_text("hello")
    assert page.url.endswith(f"#request={request.uuid}")


async def test_the_list_of_processes_is_live(page: Page, stack: Stack) -> None:
    """What runs, waits and failed, newest first; what begins and ends while one looks; a click
    leads to the log, and back."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("lister")
    request, container = await running_request(stack, user, "hello\n")
    await page.goto(f"{stack.page_url}/#token={user.token}")
    row = page.get_by_role("row").filter(has_text="watched")
    await expect(row).to_contain_text("Running")
    await expect(row.locator(".last")).to_have_text("hello")
    await cluster.write_log(container, "stderr.txt", b"2026-11-30T01:02:03Z \x1b[31mnow\x1b[0m\n")
    await expect(row.locator(".last")).to_have_text("now")
    await cluster.progress(container, 0.25)
    await expect(row.get_by_role("progressbar")).to_have_attribute("value", "0.25")
    assert user.token not in page.url
    await cluster.container_request("another", owner=user)
    await expect(page.get_by_role("row").filter(has_text="another")).to_contain_text("Queued")
    await cluster.finish(container, exit_code=3)
    await expect(row).to_contain_text("Failed")
    await page.get_by_role("combobox", name="State").select_option("bad")
    await expect(page.get_by_role("row")).to_have_count(2)
    await page.get_by_role("link", name="watched").click()
    await expect(page.locator("#log")).to_contain_text("hello")
    assert request.uuid in page.url
    await page.go_back()
    await expect(row).to_contain_text("Failed")


async def test_an_end_that_the_list_tells_first_is_shown(page: Page, stack: Stack) -> None:
    """Whoever is over is not followed any more: what is shown then stays."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("impatient")
    request, _ = await running_request(stack, user)
    held = False

    def late(line: WebSocketRoute) -> None:
        server = line.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if not held or "object" not in json.loads(message):
                line.send(message)

        server.on_message(pass_on)
        line.on_message(server.send)

    await page.route_web_socket("**/v1/stream", late)
    await page.goto(f"{stack.page_url}/#token={user.token}")
    row = page.get_by_role("row").filter(has_text="watched")
    await expect(row).to_contain_text("Running")
    held = True
    await cluster.finish(request)
    await cluster.container_request("another", owner=user, by=user)
    await expect(page.get_by_role("row").filter(has_text="another")).to_be_visible()
    await expect(row).to_contain_text("Done")


async def test_a_list_that_cannot_be_read_is_read_again(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Once Arvados answers; nobody has to come again."""
    await running_request(stack, user)
    away = {"errors": ["Arvados is away"]}

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, json=away)

    await page.clock.install()
    await page.route("**/v1/processes**", refuse)
    await page.goto(f"{stack.page_url}/#token={user.token}")
    await expect(page.locator("#overview p")).to_contain_text("cannot be read now: Arvados is away")
    await page.unroute("**/v1/processes**")
    await page.clock.fast_forward(_AGAIN_MS)
    await expect(page.get_by_role("row").filter(has_text="watched")).to_be_visible()


async def test_a_project_has_its_list(page: Page, stack: Stack, user: Actor) -> None:
    """A link to a project shows the processes in it and below it, each with its owner, by which
    they are chosen."""
    cluster = stack.sandbox.cluster
    project = await cluster.project("Genome study", owner=user)
    below = await cluster.project("Chromosome 7", owner=project, by=user)
    await cluster.container_request("inside", owner=project, by=user)
    await cluster.container_request("deep", owner=below, by=user)
    await cluster.container_request("outside", owner=user)
    await page.goto(f"{stack.page_url}/#request={project.uuid}&token={user.token}")
    await expect(page.get_by_role("row").filter(has_text="inside")).to_be_visible()
    await expect(page.get_by_role("row").filter(has_text="outside")).to_have_count(0)
    await expect(page.get_by_role("heading")).to_contain_text("Processes in Genome study")
    deep = page.get_by_role("row").filter(has_text="deep")
    await expect(deep.get_by_role("link", name="Chromosome 7")).to_be_visible()
    await page.get_by_role("combobox", name="Owner").select_option("Genome study")
    await expect(deep).to_have_count(0)
    await expect(page.get_by_role("row").filter(has_text="inside")).to_be_visible()


async def test_a_list_that_is_cut_says_so_and_finds_what_is_older(page: Page, stack: Stack) -> None:
    """A hundred are listed; older ones are found by their name or how they are, not only among
    those that are listed. What a process asks for itself does not ask for the list again."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("busy")
    oldest = await cluster.container_request("the needle", owner=user, by=user)
    failed = await cluster.run(await cluster.container_request("unlucky", owner=user, by=user))
    await cluster.finish(failed, exit_code=1)
    steps = [
        await cluster.container_request(f"step {n}", owner=user, by=user, priority=0)
        for n in range(100)
    ]
    await page.clock.install()
    await page.goto(f"{stack.page_url}/#token={user.token}")
    summary = page.locator("#overview p")
    await expect(summary).to_contain_text("these are the newest 100")
    await expect(page.get_by_role("row").filter(has_text="needle")).to_have_count(0)
    later = page.get_by_role("row").filter(has=page.get_by_text("step 7", exact=True))
    await expect(later).to_contain_text("On hold")
    await cluster.update(steps[7], {"priority": 10}, user)  # not among those that are followed
    await page.clock.fast_forward(_AGAIN_MS)
    await expect(later).to_contain_text("Queued")
    await page.locator("#overview h1").click()
    await page.keyboard.press("/")
    await page.keyboard.type("NEEDLE")
    row = page.get_by_role("row").filter(has_text="the needle")
    await expect(row.get_by_role("link").first).to_have_attribute("href", f"#request={oldest.uuid}")
    await expect(summary).not_to_contain_text("newest 100")
    await page.get_by_role("searchbox").fill("")
    await page.get_by_role("combobox", name="State").select_option("bad")
    await expect(page.get_by_role("row").filter(has_text="unlucky")).to_contain_text("Failed")
    await page.get_by_role("searchbox").fill("nothing like that")
    await expect(summary).to_have_text(
        "No process is like that: choose another name, state or owner."
    )


async def test_a_token_that_dies_leads_to_a_login(page: Page, stack: Stack) -> None:
    """While one reads: what to do is said, and the menu offers it."""
    cluster = stack.sandbox.cluster
    mortal = await cluster.user("mortal")
    request, _ = await running_request(stack, mortal, "hello\n")
    await page.goto(f"{stack.page_url}/#request={request.uuid}&token={mortal.token}")
    await expect(page.locator("#log")).to_contain_text("hello")
    await cluster.logout(mortal)
    await expect(page.locator("#why")).to_contain_text("log in again")
    await expect(page.get_by_role("button", name="Log in at Arvados")).to_be_visible()
    await page.get_by_text("Open", exact=True).click()
    await expect(page.locator("#who")).to_have_text("You are not logged in.")
    await expect(page.locator("#login")).to_be_visible()
