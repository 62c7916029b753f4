# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How one gets in, and the list of processes that one finds there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, expect

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.browser.test_page import running_request, user

__all__ = ["user"]  # the fixture


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


async def test_workbenchs_own_token_is_taken(tab: Page, stack: Stack, user: Actor) -> None:
    """Where the page is served below Workbench's origin nobody logs in twice."""
    request, _ = await running_request(stack, user, "hello\n")
    await tab.goto(stack.page_url)
    await tab.evaluate("token => localStorage.setItem('apiToken', token)", user.token)
    await tab.goto(f"{stack.page_url}/?from=workbench#request={request.uuid}")
    await expect(tab.locator("#log")).to_contain_text("hello")


async def test_the_list_of_processes_is_live(page: Page, stack: Stack) -> None:
    """What runs, waits and failed, newest first; what begins and ends while one looks; a click
    leads to the log, and back."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("lister")
    request, container = await running_request(stack, user, "hello\n")
    await page.goto(f"{stack.page_url}/#token={user.token}")
    row = page.get_by_role("row").filter(has_text="watched")
    await expect(row).to_contain_text("Running")
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


async def test_a_project_has_its_list(page: Page, stack: Stack, user: Actor) -> None:
    """A link to a project shows the processes in it, not the undefined state of a group."""
    cluster = stack.sandbox.cluster
    project = await cluster.project("Genome study", owner=user)
    await cluster.container_request("inside", owner=project, by=user)
    await cluster.container_request("outside", owner=user)
    await page.goto(f"{stack.page_url}/#request={project.uuid}&token={user.token}")
    await expect(page.get_by_role("row").filter(has_text="inside")).to_be_visible()
    await expect(page.get_by_role("row").filter(has_text="outside")).to_have_count(0)
