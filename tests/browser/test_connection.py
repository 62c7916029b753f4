# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""arvados-events.js in a browser whose line, token or server fails."""

from __future__ import annotations

import time
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Page

from sandbox import raw_rows
from sandbox.model.actors import Actor
from sandbox.raw_rows import RawRow
from sandbox.stack import Stack
from tests.support.fronts import tcp_line

_OPEN = """
async ({url, tokens}) => {
    const {ArvadosEvents} = await import(new URL("../static/arvados-events.js", location.href));
    Object.assign(window, {states: [], seen: [], asked: 0});
    const token = () => tokens[Math.min(window.asked++, tokens.length - 1)];
    const onstate = (state, detail) => window.states.push([state, detail?.reason ?? ""]);
    window.events = new ArvadosEvents({url, token, onstate});
    window.all = window.events.events(
        {onevent: (event) => window.seen.push(event.object_uuid)}, {kinds: ["collection"]});
}
"""
_DEAD_AFTER = 70.0
"""Seconds: more than 2.5 times `ping_seconds`."""


async def open_events(page: Page, stack: Stack, url: str, *tokens: str) -> None:
    """A page with a connection of its own; the token callback gives one after the other. Not ours,
    which may connect to its own server alone."""
    await page.goto(f"{stack.page_url.rstrip('/')}/v1/site")
    await page.evaluate(_OPEN, {"url": url, "tokens": tokens})


async def until_seen(page: Page, uuids: list[str]) -> None:
    """Exactly these events have come."""
    await page.wait_for_function("wanted => window.seen.length >= wanted", arg=len(uuids))
    assert await page.evaluate("window.seen") == uuids


async def states(page: Page) -> list[Any]:
    return [state for state, _ in await page.evaluate("window.states")]


@pytest.fixture
async def user(stack: Stack) -> Actor:
    return await stack.sandbox.cluster.user("viewer")


@pytest.mark.parametrize("hidden", [False, True])
async def test_a_half_open_line_is_given_up(
    page: Page, stack: Stack, user: Actor, hidden: bool
) -> None:
    """No byte and no end for longer than pings allow: a new connection, and what was missed, once.
    Timers of a hidden tab do not run; it looks at the clock when it is shown again
    (docs/facts/arvados-demand.md A15)."""
    cluster = stack.sandbox.cluster
    await page.clock.install()
    async with tcp_line.to(stack.proxy_port) as line:
        await open_events(page, stack, f"ws://{line.address}/v1/stream", user.token)
        await page.wait_for_function("() => window.all?.live")
        first = await cluster.collection("first", owner=user)
        await until_seen(page, [first.uuid])
        line.freeze()
        missed = await cluster.collection("missed", owner=user)
        if hidden:
            await page.clock.set_system_time(time.time() + _DEAD_AFTER)
            assert (await states(page))[-1] == "open"
            await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        else:
            await page.clock.fast_forward(int(_DEAD_AFTER * 1000))
        await until_seen(page, [first.uuid, missed.uuid])
        assert await states(page) == ["connecting", "open", "waiting", "connecting", "open"]
        assert line.connections == 2
        assert await page.evaluate("window.asked") == 2, "the token is asked for at each connect"


async def test_a_refused_token_is_tried_again_only_when_it_is_another(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Closed with 4501: the callback is asked once more; a new token opens, the same one stops."""
    async with tcp_line.to(stack.proxy_port) as line:
        await open_events(page, stack, f"ws://{line.address}/v1/stream", "bad", user.token)
        await page.wait_for_function("() => window.all?.live")
        assert line.connections == 2
    async with tcp_line.to(stack.proxy_port) as line:
        await open_events(page, stack, f"ws://{line.address}/v1/stream", "bad")
        await page.wait_for_function("() => window.states.at(-1)?.[0] === 'stopped'")
        assert line.connections == 1


async def test_offline_and_a_restart_lose_nothing(page: Page, stack: Stack, user: Actor) -> None:
    """Events made while the machine had no network, and while the server was away, come once."""
    cluster = stack.sandbox.cluster
    url = stack.stream_url
    await open_events(page, stack, url, user.token)
    await page.wait_for_function("() => window.all?.live")
    made = [(await cluster.collection("0", owner=user)).uuid]
    await until_seen(page, made)
    await page.context.set_offline(True)
    await page.wait_for_function("() => window.states.at(-1)?.[0] === 'waiting'")
    made.append((await cluster.collection("1", owner=user)).uuid)
    await page.context.set_offline(False)
    await until_seen(page, made)
    proxy = stack.services["wsproxy"]
    await proxy.kill()
    made.append((await cluster.collection("2", owner=user)).uuid)
    await proxy.start()
    await until_seen(page, made)
    made.append((await cluster.collection("3", owner=user)).uuid)
    await until_seen(page, made)


_WORKBENCH = """
url => {
    window.changed = [];
    window.failed = [];
    window.socket = new WebSocket(url);
    window.socket.onopen = () => window.socket.send(JSON.stringify({method: "subscribe"}));
    window.socket.onmessage = (frame) => {
        try {
            const message = JSON.parse(frame.data);
            if (!["create", "update"].includes(message.event_type)) return;
            const {requesting_container_uuid, state} = message.properties.new_attributes;
            const parent = requesting_container_uuid ?? null;
            window.changed.push([message.object_uuid, state ?? null, parent]);
        } catch (error) {
            window.failed.push(String(error));
        }
    };
}
"""


async def post(stack: Stack, row: RawRow) -> None:
    """A row as a user can post it."""
    connection = await asyncpg.connect(stack.sandbox.database.dsn)
    try:
        await raw_rows.insert(connection, [row])
    finally:
        await connection.close()


async def test_workbenchs_reading_of_v0(page: Page, stack: Stack, user: Actor) -> None:
    """What its websocket service does with each frame: JSON, then fields of `new_attributes`, also
    of a row that a user posted without any (docs/facts/arvados-demand.md 3a, A11)."""
    cluster = stack.sandbox.cluster
    await page.goto(stack.page_url)
    await page.evaluate(_WORKBENCH, f"{stack.websocket_url}?api_token={user.token}")
    await page.wait_for_function("() => window.socket.readyState === WebSocket.OPEN")
    request = await cluster.container_request("job", owner=user)
    await page.wait_for_function(
        "uuid => window.changed.some(([changed]) => changed === uuid)", arg=request.uuid
    )
    await post(stack, raw_rows.row(request.uuid, event_type="update", properties="{}"))
    await page.wait_for_function(
        "uuid => window.changed.filter(([changed]) => changed === uuid).length === 2",
        arg=request.uuid,
    )
    assert await page.evaluate("window.failed") == []


_REOPEN = """
async ({url, token, count}) => {
    const {ArvadosEvents} = await import(new URL("../static/arvados-events.js", location.href));
    const seen = [];
    const line = new ArvadosEvents({url, token});
    const open = (options) => {
        const subscription = line.events({
            onevent: (event) => {
                seen.push(event.object_uuid);
                if (seen.length % 7 !== 0) return;
                subscription.close();
                open({cursor: event.cursor});
            },
        }, {kinds: ["collection"], event_types: ["create"], ...options});
    };
    const strange = [];
    const elsewhere = {onevent: (event) => strange.push(event.object_kind)};
    line.events(elsewhere, {kinds: ["workflow"], begin: "oldest"});
    open({begin: "oldest"});
    const deadline = Date.now() + 20000;
    const pause = (ms) => new Promise(go => setTimeout(go, ms));
    while (seen.length < count && Date.now() < deadline) await pause(20);
    await pause(300);
    line.close();
    return [...seen, ...strange];
}
"""


async def test_a_subscription_hears_nothing_of_a_former_one(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Closed in its own handler and opened again from the cursor, again and again: each event once,
    in order; and one beside it hears what it asked for alone, which is nothing (RT26)."""
    cluster = stack.sandbox.cluster
    made = [(await cluster.collection(f"c{n}", owner=user)).uuid for n in range(60)]
    await page.goto(stack.page_url)
    found: list[str] = await page.evaluate(
        _REOPEN, {"url": stack.stream_url, "token": user.token, "count": len(made)}
    )
    assert [uuid for uuid in found if uuid in set(made)] == made
    assert len(found) == len(set(found))


async def test_other_origins_import_the_module(page: Page, stack: Stack) -> None:
    """From a page of somebody else's: the file says that everybody may."""
    await page.goto(f"{stack.sandbox.api.url}/discovery/v1/apis/arvados/v1/rest")
    names = await page.evaluate(
        "async url => Object.keys(await import(url))", f"{stack.page_url}/static/arvados-events.js"
    )
    assert names == ["ArvadosEvents"]
