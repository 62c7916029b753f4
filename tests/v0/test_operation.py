# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What arvados-ws' suite does not assert: keep-alive, dead tokens, outages, limits, secrets.

Each test has a wsproxy of its own at the shared site, with the settings that it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode

from sandbox.model.actors import Actor
from sandbox.sandbox import MANAGEMENT_TOKEN, Sandbox
from tests.support.clients import raw_socket as raw
from tests.support.clients.v0 import Api, Client, Json, client, settled
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site
from wsproxy.transport import pings

pytestmark = pytest.mark.ours("what arvados-ws lacks, or does in its own way")

REVOKED_WITHIN = 5.0


def own(site: Site, **changes: Any) -> Any:
    """A wsproxy of this test's own; the base of its URLs."""
    return sites.serving(sites.settings(site, **changes))


async def closed_within(socket: Client, seconds: float) -> int | None:
    """Wait for the close; its code."""
    async with asyncio.timeout(seconds):
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.socket.recv()
    return socket.socket.close_code


async def test_an_idle_connection_gets_an_empty_object(site: Site, active: Actor) -> None:
    """`{}` every SendTimeout, as long as nothing else comes."""
    async with (
        own(site, send_timeout=1.0) as base,
        client(f"{base}/websocket", active.token) as socket,
    ):
        await socket.subscribe()
        begun = time.monotonic()
        assert await socket.receive() == {}
        assert await socket.receive() == {}
        assert 1.0 <= time.monotonic() - begun < 8


async def test_a_busy_connection_gets_none(site: Site, active: Actor, active_api: Api) -> None:
    """Events are sign of life enough."""
    async with (
        own(site, send_timeout=2.0) as base,
        client(f"{base}/websocket", active.token) as socket,
    ):
        await socket.subscribe()
        made = await active_api.post("collections", name="busy")
        for number in range(12):
            await active_api.put("collections", made["uuid"], name=f"busy {number}")
            await asyncio.sleep(0.25)
        frames = [await socket.receive() for _ in range(13)]
        assert {} not in frames


async def test_a_deleted_token_ends_its_connections(site: Site, active: Actor) -> None:
    """And no others of the same user."""
    other = await site.cluster.token(active)
    async with (
        client(site.websocket_url, active.token) as lives,
        client(site.websocket_url, other.token) as dies,
    ):
        await lives.subscribe()
        await dies.subscribe()
        await site.cluster.collection("before", owner=active)
        for socket in (lives, dies):
            await (
                socket.event()
            )  # both have been let in, which an answer to a command is no proof of
        await site.cluster.delete(str(other.token_uuid), active)
        assert await closed_within(dies, REVOKED_WITHIN) == 4501
        await site.cluster.collection("after", owner=active)
        await lives.event()


async def test_logout_ends_the_connections(site: Site) -> None:
    """Though it leaves no log row (docs/facts/arvados.md 1)."""
    active = await settled(site.websocket_url, site.api.url, await site.cluster.user("leaver"))
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        await site.cluster.logout(active)
        assert await closed_within(socket, REVOKED_WITHIN) == 4501


async def test_a_token_that_expires_ends_its_connections(site: Site, active: Actor) -> None:
    """At its time, without anybody's doing; Arvados' IdleTimeout sets that time
    (docs/facts/arvados-demand.md A41)."""
    soon = datetime.now(UTC) + timedelta(seconds=2)
    short = await site.cluster.token(active, expires_at=soon)
    async with client(site.websocket_url, short.token) as socket:
        await socket.subscribe()
        await site.cluster.collection("before", owner=active)
        await socket.event()
        assert await closed_within(socket, REVOKED_WITHIN + 2) == 4501


async def test_a_deactivated_user_hears_nothing_more(site: Site, active: Actor) -> None:
    """His tokens are deleted with him."""
    async with client(site.websocket_url, active.token) as socket:
        await socket.subscribe()
        await site.cluster.deactivate(active)
        assert await closed_within(socket, REVOKED_WITHIN) == 4501


async def test_the_token_stays_out_of_metrics_and_health(site: Site, active: Actor) -> None:
    """Both answer as Arvados' own do."""
    async with own(site) as base, client(f"{base}/websocket", active.token) as socket:
        await socket.subscribe()
        url = base.replace("ws", "http", 1)
        async with httpx.AsyncClient(base_url=url) as http:
            with_token = {"Authorization": f"Bearer {MANAGEMENT_TOKEN}"}
            async with asyncio.timeout(60):  # the publishers are asked first
                health = await http.get("/_health/ping", headers=with_token)
                while health.json()["health"] != "OK":
                    health = await http.get("/_health/ping", headers=with_token)
            assert (await http.get("/_health/db", headers=with_token)).json()["health"] == "OK"
            assert (await http.get("/_health/ping")).status_code == 401
            wrong = {"Authorization": "Bearer wrong"}
            assert (await http.get("/_health/ping", headers=wrong)).status_code == 403
            numbers = (await http.get("/metrics", headers=with_token)).text
    assert 'arvados_ws_sockets{version="0"}' in numbers
    assert 'arvados_ws_db_open_connections{inuse="0"}' in numbers
    assert "arvados_ws_db_max_connections" in numbers
    assert active.token not in numbers


async def test_without_a_management_token_health_is_not_there(site: Site) -> None:
    """TestHealthDisabled."""
    async with own(site, management_token=None) as base, httpx.AsyncClient() as http:
        url = base.replace("ws", "http", 1) + "/_health/ping"
        answer = await http.get(url, headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"})
        assert answer.status_code == 404


async def test_foreign_origins_can_be_kept_out(site: Site, active: Actor) -> None:
    """Programs, which have none, are let in."""
    async with own(site, allowed_origins=("https://wb.example",)) as base:
        url = f"{base}/websocket"
        for origin in ("https://wb.example.evil", "null", "http://wb.example"):
            with pytest.raises(InvalidStatus):
                async with client(url, active.token, additional_headers={"Origin": origin}):
                    pass
        allowed = {"Origin": "https://wb.example"}
        async with client(url, active.token, additional_headers=allowed) as socket:
            await socket.subscribe()
        async with client(url, active.token) as socket:
            await socket.subscribe()


async def test_connections_are_bounded(site: Site, active: Actor, spectator: Actor) -> None:
    """In all and per user; what closed makes room."""
    async with own(site, max_connections=3, max_connections_per_user=1) as base:
        url = f"{base}/websocket"
        async with client(url, active.token) as first, client(url, active.token) as second:
            await first.subscribe()
            assert await closed_within(second, 10) == 4429
            async with client(url, spectator.token) as third:
                await third.subscribe()
        async with client(url, active.token) as again:
            await again.subscribe()
    async with own(site, max_connections_per_address=2) as base:
        url = f"{base}/websocket"
        async with client(url, active.token), client(url, active.token):
            with pytest.raises(InvalidStatus):
                async with client(url, active.token):
                    pass


async def test_subscriptions_and_commands_are_bounded(site: Site, active: Actor) -> None:
    """Too many subscriptions are a 400; fast commands wait their turn, none is lost."""
    async with (
        own(site, max_subscriptions=2, commands_per_second=1000) as base,
        client(f"{base}/websocket", active.token) as socket,
    ):
        await socket.subscribe()
        await socket.subscribe()
        await socket.send({"method": "subscribe"})
        assert await socket.status() == 400
        for _ in range(1000):
            await socket.socket.send("nonsense")
        assert [await socket.status() for _ in range(1000)] == [400] * 1000


async def test_an_unknown_path_is_refused(site: Site, active: Actor) -> None:
    """With a text that says where to go."""
    url = site.websocket_url.removesuffix("/websocket")
    with pytest.raises(InvalidStatus) as refused:
        async with client(f"{url}/other", active.token):
            pass
    assert refused.value.response.status_code == 404
    assert b"/websocket" in (refused.value.response.body or b"")


async def test_without_permission_publisher_arvados_is_asked(
    sandbox: Sandbox,
) -> None:
    """With each reader's own token, once an object: nothing more, nothing less is shown."""
    async with sites.beside(sandbox, permissions=False) as alone:
        one, other = [await alone.cluster.user(name) for name in ("one", "other")]
        project = await alone.cluster.project("shared", owner=one)
        await alone.cluster.share(project, other)
        async with (
            client(alone.websocket_url, one.token) as socket,
            client(alone.websocket_url, other.token) as second,
        ):
            for reader in (socket, second):
                await reader.subscribe()
            private = await alone.cluster.collection("private", owner=one)
            shared = await alone.cluster.collection("shared", owner=project, by=one)
            await socket.event_about(private.uuid)
            await socket.event_about(shared.uuid)
            event = await second.event_about(shared.uuid)
            assert event["msgID"] >= 1
            calls = "GET /arvados/v1/collections"
            before = alone.backend.faults.count(calls)
            for number in range(5):
                await alone.cluster.update(shared, {"name": f"n{number}"}, one)
            for _ in range(5):
                await second.event_about(shared.uuid, "update")
            assert alone.backend.faults.count(calls) - before <= 2
            with alone.backend.faults.failing("GET /arvados/v1/collections", 503):
                late = await alone.cluster.collection("late", owner=project, by=one)
                await second.silent(0.5)
            await second.event_about(late.uuid)


async def test_without_permission_publisher_the_past_is_arvados_to_tell(
    sandbox: Sandbox,
) -> None:
    """About each old object as it is now; what was called deleted and is there is asked about."""
    async with sites.beside(sandbox, permissions=False) as alone:
        one, other = [await alone.cluster.user(name) for name in ("one", "other")]
        project = await alone.cluster.project(owner=one)
        await alone.cluster.share(project, other)
        left, falsely, deleted, stays = [
            await alone.cluster.collection(name, owner=project, by=one)
            for name in ("left", "falsely", "deleted", "stays")
        ]
        api = Api(alone.api.url, one.token)
        async with client(alone.websocket_url, one.token) as writer:
            await writer.subscribe(last_log_id=1)
            await writer.event_about(stays.uuid)
            await api.post("logs", object_uuid=falsely.uuid, event_type="delete")
            await writer.event_about(falsely.uuid, "delete")
        for gone in (left, falsely):
            await alone.cluster.update(gone, {"owner_uuid": one.uuid}, one)
        async with alone.cluster.unit(one) as unit:
            await unit.destroy(await alone.cluster.reload(deleted))
        await alone.cluster.update(stays, {"name": "still"}, one)
        await api.close()
        async with client(alone.websocket_url, one.token) as writer:
            await writer.subscribe(last_log_id=1)
            await writer.event_about(stays.uuid, "update")
        async with client(alone.websocket_url, other.token) as reader:
            await reader.subscribe(last_log_id=1)
            seen: list[Json] = []
            while not seen or (seen[-1]["object_uuid"], seen[-1]["event_type"]) != (
                stays.uuid,
                "update",
            ):
                seen.append(await reader.event())
        told = {(event["object_uuid"], event["event_type"]) for event in seen}
        assert {uuid for uuid, _ in told}.isdisjoint((left.uuid, falsely.uuid))
        assert {(deleted.uuid, "delete"), (stays.uuid, "create")} <= told


async def test_arvados_away_delays_nobody_who_is_known(
    site: Site, active: Actor, spectator: Actor
) -> None:
    """A new connection waits for the answer and then gets what it subscribed to before it."""
    async with (
        own(site) as base,
        client(f"{base}/websocket", active.token) as known,
    ):
        await known.subscribe()
        await site.cluster.collection("first", owner=active)
        await known.event()
        async with contextlib.AsyncExitStack() as stack:
            with site.backend.faults.failing("GET", 503):
                new = await stack.enter_async_context(client(f"{base}/websocket", spectator.token))
                await new.subscribe()
                mine = await site.cluster.collection("meanwhile", owner=spectator)
                await site.cluster.collection("second", owner=active)
                await known.event()
                await new.silent(0.3)
            event = await new.event_about(mine.uuid)
            assert event["event_type"] == "create"


async def test_nats_restarted_loses_nothing(
    sandbox: Sandbox,
) -> None:
    """Sockets stay open; what was stored meanwhile comes in order, once."""
    async with sites.beside(sandbox) as restarted:
        user = await restarted.cluster.user("one")
        await settled(restarted.websocket_url, restarted.api.url, user)
        async with client(restarted.websocket_url, user.token) as socket:
            await socket.subscribe([["event_type", "in", ["create"]]])
            names = []
            for round_ in range(3):
                for number in range(5):
                    made = await restarted.cluster.collection(f"{round_} {number}", owner=user)
                    names.append(made.uuid)
                if round_ < 2:
                    await sandbox.nats.restart()
            seen: list[str] = []
            while len(seen) < len(names):
                event = await socket.event(30)
                if event["object_kind"] == "arvados#collection":
                    seen.append(event["object_uuid"])
            assert seen == names, [names.index(uuid) for uuid in seen]
            await socket.silent()


async def test_a_browser_that_sleeps_over_lunch_stays(
    site: Site, active: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pings that nobody answers, though the machine does, end a connection when the setting says
    so, and by default not within two hours: Workbench would never come back (W2)."""
    assert sites.settings(site).silent_seconds >= 2 * 3600
    monkeypatch.setattr(pings, "_PING_SECONDS", 0.1)
    async with (
        own(site, silent_seconds=1.0) as base,
        own(site) as patient,
        raw.opened(f"{base}/websocket?api_token={active.token}") as short,
        raw.opened(f"{patient}/websocket?api_token={active.token}") as long,
    ):
        await short.rest()
        await long.send(raw.text('{"method": "subscribe"}'))
        while (answer := await long.frame()).opcode is Opcode.PING:
            pass
        assert bytes(answer.data) == b'{"status":200}'


async def test_an_upgrade_at_a_wrong_path_is_no_fault_of_ours(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """404 with what is right, and no line in the log that anybody could fill it with (W3)."""
    async with own(site) as base:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{base}/websocket/"):
                pass
        assert refused.value.response.status_code == 404
        assert b"/websocket" in (refused.value.response.body or b"")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
