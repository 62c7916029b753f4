# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Workbench's case: a page of somebody else's that knows a request from one subscription alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from playwright.async_api import Page

from sandbox.stack import Stack

_FOLLOW = """
async ({uuid, token}) => {
    const {ArvadosEvents} = await import(new URL("static/arvados-events.js", location.href));
    const url = new URL("v1/stream", location.href.replace(/^http/, "ws")).href;
    window.states = [];
    new ArvadosEvents({url, token}).object(uuid, {
        onobject: ({record}) => window.states.push(record),
    });
}
"""
_SHOWS = """
([state, container]) => {
    const record = window.states.at(-1);
    return record?.state === state && record.container?.state === container;
}
"""


class Reads:
    """Calls of Arvados' API for objects; reading logs is the log publisher's own work, and services
    read the configuration by the clock."""

    def __init__(self, stack: Stack) -> None:
        self._calls = stack.sandbox.backend.faults.calls
        self._before = self.now

    @property
    def now(self) -> Counter[str]:
        others = ("/log", "/config")
        return Counter({name: n for name, n in self._calls.items() if not name.endswith(others)})

    @property
    def since(self) -> Counter[str]:
        return self.now - self._before


async def test_a_page_follows_a_request_to_its_end_by_its_state_alone(
    page: Page, stack: Stack
) -> None:
    """From Committed to Final, retried once: the page fetches nothing more, and Arvados is asked
    for nothing more after the first state (docs/facts/arvados-demand.md A14)."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("viewer")
    request = await cluster.container_request("job", owner=user, container_count_max=2)
    await page.goto(stack.page_url)
    await page.evaluate(_FOLLOW, {"uuid": request.uuid, "token": user.token})
    await until(page, "Committed", "Queued")
    fetched: list[str] = []
    page.on("request", lambda asked: fetched.append(asked.url))
    page.on("websocket", lambda opened: fetched.append(opened.url))
    reads = Reads(stack)

    first = await cluster.run(request)
    await until(page, "Committed", "Running")
    await cluster.cancel(first)
    await until(page, "Committed", "Queued")
    second = await cluster.run(request)
    await cluster.progress(second, 0.5)
    await until(page, "Committed", "Running")
    await cluster.finish(second, exit_code=2)
    await until(page, "Final", "Complete")

    states: list[dict[str, Any]] = await page.evaluate("window.states")
    last = states[-1]
    shown = [state["container"]["uuid"] for state in states if state["container"]]
    assert list(dict.fromkeys(shown)) == [first.uuid, second.uuid]
    stored, ran = await cluster.reload(request), await cluster.reload(second)
    assert (last["log_uuid"], last["output_uuid"]) == (stored["log_uuid"], stored["output_uuid"])
    assert last["log_uuid"]
    told = {name: last["container"][name] for name in ("exit_code", "progress", "output", "log")}
    assert told == {name: ran[name] for name in told}
    assert told["exit_code"] == 2
    assert not fetched
    assert not reads.since


async def until(page: Page, state: str, container: str) -> None:
    """The page has been told these states of the request and of its present container."""
    await page.wait_for_function(_SHOWS, arg=[state, container])
