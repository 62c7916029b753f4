# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The whole past as somebody gets it who joins now, by every door: events by uuid of their rows."""

from __future__ import annotations

from typing import Any

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients import v0, v1
from tests.support.clients.native_answers import all_events, native

Events = dict[str, dict[str, Any]]


async def by_v1(stack: Stack, actor: Actor, **filters: Any) -> Events:
    """From the oldest event to the end."""
    async with v1.connected(f"ws://127.0.0.1:{stack.proxy_port}", actor) as client:
        await client.send("subscribe", {"id": "all", "events": {"begin": "oldest", **filters}})
        await client.until("caught_up", id="all")
        return {body["uuid"]: body for key, body in client.seen if key == "event"}


async def by_v0(stack: Stack, actor: Actor, last_log_id: int) -> Events:
    """What follows a row, up to a change of the reader's own that is made now."""
    async with v0.client(stack.websocket_url, actor.token) as client:
        await client.subscribe(last_log_id=last_log_id)
        made = await stack.sandbox.cluster.collection(owner=actor)
        found: Events = {}
        while True:
            event = await client.event()
            if event["object_uuid"] == made.uuid:
                return found
            found[event["uuid"]] = event


async def by_native(stack: Stack, actor: Actor) -> Events:
    """All pages of `arvados.api.events`."""
    async with native(stack, actor) as nats:
        return {event["uuid"]: event for event in await all_events(nats, limit=1000)}
