# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The edge to NATS: what it promises about connecting, publishing and failing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from arvados_nats.contract import streams
from arvados_nats.contract.streams import require_version
from arvados_nats.errors import ConfigError, Disagreement, Refused, Unavailable
from arvados_nats.nats import accounts_config
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from arvados_nats.service import keys
from sandbox.servers import nats_server as nats_servers
from sandbox.servers.nats_server import NatsServer
from tests.support.fronts import cuttable


def seed(folder: Path, name: str) -> str:
    return keys.load(folder, name).text


async def test_wrong_credentials_are_refused_at_once(nats_server: NatsServer) -> None:
    """The client library would try for ever."""
    stranger = keys.generate(keys.Kind.USER).text
    with pytest.raises(Refused):
        async with nats_client.connect([nats_server.url], name="stranger", seed=stranger):
            raise AssertionError("let in")


@contextlib.asynccontextmanager
async def hesitating(verdicts: list[bytes]) -> AsyncIterator[str]:
    """A server that sends one of these to each client that wants to log in; it leaves whom it
    has told neither yes nor no."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "N", "version": "2.15.1", "max_payload": 1000, "headers": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"CONNECT"):
                await reader.readline()
                verdict = verdicts.pop(0)
                writer.write(verdict)
                if verdict in (b"", _PING):
                    break
            elif line == _PING:
                writer.write(_YES)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


_PING, _YES, _NO = b"PING\r\n", b"PONG\r\n", b"-ERR 'Authorization Violation'\r\n"


async def test_a_ping_before_the_verdict_is_no_yes() -> None:
    """While the callout decides, the server may ping; nobody is in before it has answered
    (docs/facts/nats-callout.md 1.5)."""
    async with hesitating([_PING + _NO]) as url:
        with pytest.raises(Refused):
            async with nats_client.connect([url], name="early", token="t", timeout=30):
                raise AssertionError("let in")
    async with (
        hesitating([_PING, b"", _PING + _YES]) as url,
        nats_client.connect([url], name="early", token="t", timeout=30) as nats,
    ):
        assert nats.connected


async def test_a_ping_before_a_no_ends_nobody_who_comes_back() -> None:
    """The callout could not decide in time, and the server pinged first: they try again."""
    verdicts = [_YES, _PING + _NO, _PING, b"", _YES]
    async with (
        hesitating(verdicts) as url,
        nats_client.connect([url], name="back", token="t", timeout=30) as nats,
    ):
        gone, back = asyncio.Event(), asyncio.Event()
        nats.on_change(lambda connected: (back if connected else gone).set())
        nats._client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
        async with asyncio.timeout(30):
            await gone.wait()
            await back.wait()
        assert nats.connected
        assert not verdicts


async def test_who_is_refused_when_it_comes_back_leaves_nothing_behind() -> None:
    """However its leaving falls into an attempt: no socket stays open, and no attempt follows."""

    async def leave(turns: int) -> None:
        verdicts = [b"PONG\r\n", *[b"-ERR 'Authorization Violation'\r\n"] * 9]
        async with hesitating(verdicts) as url:
            async with nats_client.connect([url], name="gone", token="t", timeout=5) as nats:
                nats._client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
                while len(verdicts) > 7:  # noqa: ASYNC110 (to leave in this very turn of the loop)
                    await asyncio.sleep(0)
                for _ in range(turns):
                    await asyncio.sleep(0)
            left = len(verdicts)
            await asyncio.sleep(0.6)  # two attempts are 0.25 s apart
            assert len(verdicts) == left

    await asyncio.gather(*map(leave, range(15)))


async def test_nobody_there_is_unavailable_in_time() -> None:
    """`timeout` bounds the first connect."""
    with pytest.raises(Unavailable):
        async with nats_client.connect(
            ["nats://127.0.0.1:1"], name="lonely", seed=None, timeout=0.5
        ):
            raise AssertionError("connected")


@pytest.mark.parametrize("version", ["2.10.0", "2.13.9", "2.13.9-beta.1", "1.4.1"])
def test_old_servers_are_refused_with_what_to_do(version: str) -> None:
    """The floor is named, and so is what was found."""
    with pytest.raises(ConfigError, match=r"2\.14\.0") as raised:
        require_version(version)
    assert version in str(raised.value)


@pytest.mark.parametrize("version", ["2.14.0", "2.15.1", "2.14.2-RC.1", "3.0.0"])
def test_new_servers_are_accepted(version: str) -> None:
    """The floor itself included."""
    require_version(version)


async def test_streams_are_created_and_brought_to_our_values(
    fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """`ensure` is idempotent, changes what we set and keeps what others set."""
    async with nats_client.connect(
        [fresh_nats.url], name="t", seed=seed(keys_folder, "publisher")
    ) as nats:
        config = streams.event_stream()
        await streams.ensure(nats, config)
        await streams.ensure(nats, config)
        changed = {**config, "max_bytes": config["max_bytes"] // 2}
        await streams.ensure(nats, changed)
        present = await nats.stream_config(streams.EVENTS)
    assert present is not None
    assert {key: present[key] for key in changed} == changed


async def test_the_stream_of_cursors_says_whose_the_account_is(
    fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """Also one that is older than that; who comes second from elsewhere changes nothing of it."""
    async with nats_client.connect(
        [fresh_nats.url], name="t", seed=seed(keys_folder, "publisher")
    ) as nats:
        assert await streams.owner(nats) is None
        for config in (streams.cursor_stream(), streams.cursor_stream(cluster="aaaaa")) * 2:
            await streams.ensure(nats, config)
        with pytest.raises(Disagreement, match=r"cluster aaaaa, and this is bbbbb"):
            await streams.ensure(nats, streams.cursor_stream(cluster="bbbbb"))
        assert await streams.owner(nats) == "aaaaa"


async def test_who_asks_for_a_stream_that_is_being_made_is_answered(keys_folder: Path) -> None:
    """Three servers say nothing at all about it until it has a leader: the question is asked again
    (docs/facts/nats.md)."""
    limits = accounts_config.AccountLimits(copies=3)
    async with (
        nats_servers.run_cluster(keys_folder, limits=limits) as servers,
        nats_client.connect(
            [server.url for server in servers], name="t", seed=seed(keys_folder, "publisher")
        ) as nats,
    ):
        making = asyncio.gather(
            *(
                streams.ensure(nats, {**streams.cursor_stream(3), **name})
                for n in range(6)
                if (name := {"name": f"T{n}", "subjects": [f"t{n}.>"]})
            )
        )
        questions: list[asyncio.Task[str | None]] = []
        while not making.done():
            questions += [asyncio.create_task(streams.created(nats, f"T{n}")) for n in range(6)]
            await asyncio.sleep(0.005)
        await making
        assert None in await asyncio.gather(*questions)


async def test_what_was_asked_during_an_outage_is_not_asked_after_it(
    fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """Nobody waits for the answers, and an hour's questions at once would be too many."""
    heard: list[Message] = []

    async def hear(message: Message) -> None:
        heard.append(message)

    async with nats_client.connect(
        [fresh_nats.url], name="t", seed=seed(keys_folder, "publisher")
    ) as nats:
        await nats.subscribe("asked.>", hear)
        await nats.flush()
        away = asyncio.Event()
        nats.on_change(lambda connected: None if connected else away.set())
        await fresh_nats.kill()
        await away.wait()
        for _ in range(3):
            with pytest.raises(Unavailable):
                await nats.request("asked.during", timeout=0.1)
        await fresh_nats.start()
        await nats.until_connected()
        await nats.publish("asked.after")
        await nats.flush()
    assert [message.subject for message in heard] == ["asked.after"]


async def test_stored_messages_are_republished_acknowledged_and_read_back(
    fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """What a reader gets live is what history holds, with sequences that join the two."""
    async with nats_client.connect(
        [fresh_nats.url], name="t", seed=seed(keys_folder, "publisher")
    ) as nats:
        await streams.ensure(nats, streams.event_stream())
        live: asyncio.Queue[Message] = asyncio.Queue()
        await nats.subscribe("arvados.stored.events.>", live.put)
        futures = [
            await nats.publish_stored(
                f"arvados.events.other.none.n{number % 3}",
                b"%d" % number,
                {"Nats-Msg-Id": f"{number}"},
            )
            for number in range(2500)
        ]
        acks = [await future for future in futures]
        again = await (
            await nats.publish_stored("arvados.events.other.none.n0", b"0", {"Nats-Msg-Id": "0"})
        )
        history = [stored async for stored in nats.history(streams.EVENTS, "arvados.events.>")]
        republished = [live.get_nowait() for _ in range(live.qsize())]
        last = await nats.last(streams.EVENTS, "arvados.events.other.none.n1")
    assert [ack["seq"] for ack in acks] == list(range(1, 2501))
    assert again["duplicate"] is True
    assert [int(stored.data) for stored in history] == list(range(2500))
    assert [int(message.headers["Nats-Sequence"]) for message in republished] == list(
        range(1, 2501)
    )
    assert last is not None
    assert int(last.data) == 2497


async def test_a_flush_that_is_given_up_leaves_the_connection_alive(
    nats_server: NatsServer, keys_folder: Path
) -> None:
    """The library ends its read loop when the answer to a cancelled flush comes late."""
    async with nats_client.connect(
        [nats_server.url], name="t", seed=seed(keys_folder, "publisher")
    ) as nats:
        given_up = asyncio.create_task(nats.flush())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        await nats.flush(timeout=2.0)
        assert await nats.stream_info("NONE") is None


async def test_a_flush_follows_what_was_sent_before(
    fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """After it, a subscription is known to the server: another connection's request finds it. The
    library's own ping overtakes a subscription that waits to be written."""

    async def answer(message: Message) -> None:
        await here.publish(message.reply, b"found")

    publisher = seed(keys_folder, "publisher")
    async with (
        nats_client.connect([fresh_nats.url], name="here", seed=publisher) as here,
        nats_client.connect([fresh_nats.url], name="there", seed=publisher) as there,
    ):
        for number in range(300):
            subject = f"test.flush.{number}"
            subscription = await here.subscribe(subject, answer)
            await here.flush()
            assert (await there.request(subject)).data == b"found"
            await subscription.unsubscribe()


async def _request(nats: Nats) -> None:
    await nats.request("arvados.check.echo")


async def _answers(nats: Nats) -> None:
    async for _ in nats.request_all("arvados.check.echo", window=0.001):
        pass


async def _history(nats: Nats) -> None:
    async for _ in nats.history(streams.EVENTS, "arvados.events.>"):
        pass


@pytest.mark.parametrize("ask", [_request, _answers, _history])
async def test_who_is_to_stop_stops_however_fast_answers_come(
    fresh_nats: NatsServer, keys_folder: Path, ask: Callable[[Nats], Awaitable[None]]
) -> None:
    """A cancellation that comes together with an answer is not lost: a publisher that had lost its
    PostgreSQL session while it read the stream went on without the lock and deaf for NOTIFY."""
    seed = keys.load(keys_folder, "publisher").text
    async with nats_client.connect([fresh_nats.url], name="test", seed=seed) as nats:
        await streams.ensure(nats, streams.event_stream())
        for number in range(200):
            await nats.publish_stored(f"arvados.events.other.none.{number}", b"x")

        async def answer(message: Message) -> None:
            await nats.publish(message.reply, b"yes")

        await nats.subscribe("arvados.check.echo", answer)
        await nats.flush()

        async def for_ever() -> None:
            while True:
                await ask(nats)

        for _ in range(100):
            asking = asyncio.create_task(for_ever())
            await asyncio.sleep(random.uniform(0.001, 0.02))
            asking.cancel()
            await asyncio.wait([asking], timeout=10)
            assert asking.cancelled()


CALLS: dict[str, Callable[[Nats], Awaitable[object]]] = {
    "publish": lambda nats: nats.publish("arvados.test", b"x" * 900_000),
    "publish_stored": lambda nats: nats.publish_stored("arvados.test", b"x" * 900_000),
    "request": lambda nats: nats.request("arvados.test", b"x" * 900_000, timeout=60),
    "js_api": lambda nats: nats.js_api("INFO", "x" * 900_000),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_cancellation_is_never_lost_while_nats_is_slow(
    fresh_nats: NatsServer, keys_folder: Path, call: str
) -> None:
    """nats-py swallows it where it waits for the server to take what is sent (K3)."""
    publisher = seed(keys_folder, "publisher")
    async with nats_client.connect([fresh_nats.url], name="slow", seed=publisher) as nats:
        await nats.publish_stored("arvados.test", b"")
        os.kill(fresh_nats.pid, signal.SIGSTOP)
        try:
            await _fill(nats)
            while nats._client._pending_data_size:  # noqa: ASYNC110 (the library does not tell)
                await asyncio.sleep(0.01)
            await _fill(nats)
            going_on = False

            async def part() -> None:
                nonlocal going_on
                await CALLS[call](nats)
                going_on = True

            task = asyncio.create_task(part())
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait((task,), timeout=3)
            assert task.cancelled()
            assert not going_on
        finally:
            os.kill(fresh_nats.pid, signal.SIGCONT)


async def _fill(nats: Nats) -> None:
    """Leave room for no more than one message before sending has to wait."""
    while nats._client._pending_data_size < nats_client._OUTGOING_BYTES - 1_000_000:
        await nats.publish("arvados.test", b"x" * 400_000)


async def test_clean_up_sends_after_a_cancellation(
    fresh_nats: NatsServer, keys_folder: Path
) -> None:
    """Only a cancellation that came during a call ends it."""
    publisher = seed(keys_folder, "publisher")
    async with nats_client.connect([fresh_nats.url], name="clean", seed=publisher) as nats:
        heard: asyncio.Queue[Message] = asyncio.Queue()
        await nats.subscribe("arvados.test.*", heard.put)
        await nats.flush()

        async def part() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await nats.publish("arvados.test.1")
                await nats.publish("arvados.test.2")

        task = asyncio.create_task(part())
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(60):
            assert (await heard.get()).subject == "arvados.test.1"
            assert (await heard.get()).subject == "arvados.test.2"
        assert task.cancelled()


async def test_who_leaves_is_told_nothing_of_it(
    nats_server: NatsServer, keys_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that ends has ended its connection itself (V16)."""
    changes: list[bool] = []
    async with nats_client.connect(
        [nats_server.url], name="test", seed=seed(keys_folder, "wsproxy")
    ) as nats:
        nats.on_change(changes.append)
    assert changes == []
    assert "NATS connection changed" not in caplog.text


@pytest.mark.parametrize("turns", [1, 2, 5])
@pytest.mark.parametrize("what", ["close", "publish", "unsubscribe"])
async def test_a_connection_that_ends_while_we_leave_is_no_crash(
    nats_server: NatsServer, keys_folder: Path, what: str, turns: int
) -> None:
    """uvloop raises RuntimeError for a transport that was closed a moment ago (V13)."""

    async def heard(_: Message) -> None: ...

    async def leave() -> None:
        async with nats_client.connect(
            [nats_server.url], name="test", seed=seed(keys_folder, "wsproxy")
        ) as nats:
            subscription = await nats.subscribe("arvados.check.none", heard)
            nats._client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
            for _ in range(turns):
                await asyncio.sleep(0)
            with contextlib.suppress(Unavailable):
                if what == "publish":
                    await nats.publish("arvados.check.none")
                if what == "unsubscribe":
                    await subscription.unsubscribe()

    await asyncio.to_thread(uvloop.run, leave())


async def test_answers_of_the_server_itself_are_read(
    nats_server: NatsServer, keys_folder: Path
) -> None:
    """They have two spaces where there is no reply; the connection stands, and each one comes."""
    seed = keys.load(keys_folder, "sys").text
    async with nats_client.connect([nats_server.url], name="test", seed=seed) as system:
        changes: list[bool] = []
        system.on_change(changes.append)
        for _ in range(3):
            answer = await system.request("$SYS.REQ.SERVER.PING.CONNZ", b"{}")
            assert "connections" in json.loads(answer.data)["data"]
    assert not [connected for connected in changes[:-1] if not connected]


async def test_a_silent_line_is_given_up_with_all_that_waits_for_it(
    nats_server: NatsServer, keys_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the kernel would wait for a quarter of an hour to get rid of the rest."""
    monkeypatch.setattr(nats_client, "_PING_SECONDS", 0.2)
    lost, back = asyncio.Event(), asyncio.Event()
    async with (
        cuttable.before("127.0.0.1", nats_server.port) as line,
        nats_client.connect(
            [f"nats://127.0.0.1:{line.port}"], name="test", seed=seed(keys_folder, "publisher")
        ) as nats,
    ):
        nats.on_change(lambda connected: (back if connected else lost).set())
        line.silence()
        for _ in range(40):
            await nats.publish("arvados.leading.test", bytes(512 * 1024))
        async with asyncio.timeout(60):
            await lost.wait()
            await back.wait()
            await nats.flush()


async def test_who_leaves_a_silent_line_leaves_no_task(
    nats_server: NatsServer, keys_folder: Path
) -> None:
    """Also with more waiting to be sent than the kernel takes."""

    async def heard(_: Message) -> None:
        """Nothing comes."""

    async with (
        cuttable.before("127.0.0.1", nats_server.port) as line,
        nats_client.connect(
            [f"nats://127.0.0.1:{line.port}"], name="test", seed=seed(keys_folder, "publisher")
        ) as nats,
    ):
        task = (await nats.subscribe("arvados.leading.test", heard))._raw._wait_for_msgs_task
        assert task is not None
        line.silence()
        for _ in range(40):
            await nats.publish("arvados.leading.test", bytes(512 * 1024))
    async with asyncio.timeout(20):
        await asyncio.wait([task])
        with pytest.raises(Unavailable):
            await nats.until_closed()
