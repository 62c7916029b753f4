# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in a stream, and below what is live and asked, those who read it go on.

Every service is a process. The messages come from the publisher's own identity, past every door:
what a container, a user or a row can bring there is less. After each handful an honest change and
an honest line of a log must reach a socket, a native client and a terminal, over the connections
that they had before, and no service may have met anything that it did not expect.

`ARVADOS_NATS_FUZZ_EXAMPLES` is how many handfuls are sent.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nats.aio.client import Client as RawClient

from arvados_nats.contract import streams, subjects, system_log_records
from arvados_nats.contract.log_chunks import Chunk
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from sandbox import stack as services
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.hostile.streams import raw_sender
from tests.support.clients import v1
from tests.support.clients.native import Native, connected, lets_in_at_last
from tests.support.clients.terminal_command import Command, environment, started
from tests.support.waiting import until

EXAMPLES = int(os.environ.get("ARVADOS_NATS_FUZZ_EXAMPLES", "10"))

_FAULT = re.compile(
    r'"traceback"|process\.crashed|publishers\.restart|Traceback|exception was never'
)


@dataclass(slots=True, repr=False)
class Victims:
    """Who must hear what is honest: a browser, a native client, an administrator's terminal."""

    stack: Stack
    nats: Nats
    sender: RawClient
    owner: Actor
    container: Record
    collection: Record
    browser: v1.Client
    native: Native
    terminal: Command
    numbers: itertools.count[int]
    offset: int = 0

    async def hear(self) -> None:
        """One honest change, line and record, heard by all three."""
        number = next(self.numbers)
        name, line = f"honest {number}", b"honest %d\n" % number
        await self.stack.sandbox.cluster.update(self.collection, {"name": name}, self.owner)
        chunk = Chunk(self.container.uuid, "stdout.txt", 0, self.offset, line)
        self.offset = chunk.end
        await (await self.nats.publish_stored(chunk.subject, chunk.data, chunk.headers))
        text = json.dumps({"MESSAGE": name, "UNIT": "u", "PRIORITY": "3"}).encode()
        record, _ = system_log_records.encode(system_log_records.read(text, "honest"), 1000)
        await (await self.nats.publish_stored(subjects.system_log("honest", "u"), record, {}))
        file = self.container.uuid, "stdout.txt"
        await self.browser.until_true(
            lambda: (
                bytes(self.browser.logs.content(*file)).endswith(line)
                and any(name in json.dumps(body) for _, body in self.browser.seen[-50:])
            )
        )
        await until(
            lambda: (
                {line, True}
                <= {m.data for m in self.native.heard}
                | {name.encode() in m.data for m in self.native.heard}
            ),
            "the native client hears both",
        )
        await self.terminal.shows(name.encode())
        self.native.heard.clear()

    def unharmed(self) -> None:
        """Nobody lost a connection, and no service met what it did not expect."""
        services.require(self.stack)
        assert self.native.cuts == 0
        if fault := _FAULT.search(self.stack.output):
            at = fault.start()
            raise AssertionError(self.stack.output[max(0, at - 1500) : at + 2500])


@pytest.fixture(scope="module")
def stack(own_stack: Stack) -> Stack:
    """Of this file alone: no service may have met what it did not expect."""
    return own_stack


@pytest.fixture(scope="module")
async def victims(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Victims]:
    """All three, and the sender."""
    cluster, url = stack.sandbox.cluster, stack.sandbox.nats.url
    owner = await cluster.user("victim")
    request = await cluster.container_request("r", owner=owner)
    container = await cluster.run(request)
    collection = await cluster.collection("c", owner=owner)
    home: Path = tmp_path_factory.mktemp("home")
    env = environment(stack, cluster.root, home)
    seed = stack.sandbox.seed("publisher")
    async with AsyncExitStack() as exits:
        own = await exits.enter_async_context(nats_client.connect([url], name="test", seed=seed))
        sender = await nats.connect(url, nkeys_seed_str=seed)
        exits.push_async_callback(sender.close)
        native = await exits.enter_async_context(connected(stack, owner))
        await native.listen(f"{subjects.LIVE}.{owner.uuid}.>")
        base = stack.websocket_url.removesuffix("/websocket")
        browser = await exits.enter_async_context(v1.connected(base, owner))
        await browser.subscribe("log", log={"uuid": request.uuid})
        await browser.subscribe("object", object={"uuid": collection.uuid})
        assert await lets_in_at_last(stack, cluster.root.token)
        terminal = await exits.enter_async_context(
            started("watch", "system-logs", "--nats", url, "--oldest", env=env)
        )
        yield Victims(
            *(stack, own, sender, owner, container, collection),
            *(browser, native, terminal, itertools.count()),
        )


WORD = st.one_of(
    st.sampled_from(
        ("x", "stdout_txt", "stderr_txt", "end", "update", "create", "delete", "other")
    ),
    st.text("abc_-*>$ \t\x0b\x0c\0é\N{SNOWMAN}", min_size=1, max_size=8),
    st.binary(min_size=1, max_size=8).map(lambda b: b.decode("latin-1")),
    st.integers(1, 40).map(lambda number: f"a\x0b{number}"),
    st.just("x" * 2000),
)
VALUE = st.one_of(
    st.integers(-(2**65), 2**65).map(str),
    st.sampled_from(("0", "1", "push", "stdout.txt", "end", "x", "", "503", "404", "204", ">")),
    st.text(max_size=10),
)
NAME = st.sampled_from(
    (
        *("Arvados-File", "Arvados-Offset", "Arvados-Epoch", "Arvados-End", "Arvados-Source"),
        *("Nats-Msg-Id", "Nats-Sequence", "Nats-Last-Sequence", "Nats-Subject", "Nats-Stream"),
        *("Nats-Time-Stamp", "Status", "Description", "Nats-Request-Info", "KV-Operation"),
        *("Arvados-Graph-Follows", "Nats-Num-Pending", "a b", ""),
    )
)


def _lines(pairs: list[tuple[str, str]]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return b"NATS/1.0\r\n" + lines.encode("utf-8", "surrogatepass") + b"\r\n"


HEADERS = st.one_of(
    st.just(b""),
    st.lists(st.tuples(NAME, VALUE), max_size=5).map(_lines),
    # nats-server 2.15.1 dies of a single byte, which only a client in ARVADOS can send.
    st.binary(min_size=2, max_size=30),
    st.sampled_from((b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 \xff\xff\xff\r\n\r\n", b"NATS/1.0\r\n")),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
DATA = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.sampled_from(((b"[", 3000), (b'{"a":', 3000), (b"\xff", 70_000), (b"x", 300_000))),
)


def _altered(honest: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A message as our own publishers write it, with some of its values exchanged."""
    changes = st.dictionaries(st.sampled_from(sorted(honest)), JSON, max_size=3)
    return changes.map(lambda change: json.dumps({**honest, **change}).encode("utf-8", "replace"))


def _event(uuid: str, owner: str) -> dict[str, Any]:
    return {
        **{"id": 1, "uuid": "zzzzz-57u5n-000000000000000", "event_type": "update"},
        **{"event_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z"},
        **{"object_uuid": uuid, "object_kind": "arvados#collection", "object_owner_uuid": owner},
        **{"verified": True, "audience": [[owner, uuid]], "facts": {}},
        "properties": {"new_attributes": {"name": "x"}, "old_attributes": {}},
    }


KINDS = ("container", "container_request", "collection", "group", "link", "user", "log", "other")
UUIDS = ("zzzzz-4zz18-000000000000000", "zzzzz-dz642-000000000000000", "none", "x")
MESSAGE = st.tuples(
    st.one_of(
        st.tuples(st.just("arvados.logs.{container}"), WORD),
        st.tuples(st.just("arvados.logs.zzzzz-dz642-000000000000000"), WORD),
        st.tuples(st.just("arvados.logs"), WORD, WORD),
        st.tuples(
            *(st.just("arvados.events"), st.sampled_from(KINDS), st.sampled_from(UUIDS), WORD)
        ),
        st.tuples(st.just("arvados.syslog.host"), WORD),
        st.tuples(st.just("$KV.ARVADOS_QUEUE"), st.sampled_from(UUIDS)),
        st.tuples(st.just("arvados.stored.logs.{container}"), WORD),
        st.tuples(st.just("arvados.stored.events.container.{container}"), WORD),
        st.tuples(st.just("arvados.stored.events.group.zzzzz-j7d0g-000000000000000"), WORD),
        st.tuples(st.just("arvados.api"), WORD),
        st.tuples(
            *(st.just("arvados.api"), st.sampled_from(("logs", "events", "whoami", "object.x")))
        ),
        st.tuples(st.just("arvados.live.{owner}.{collection}.event.collection"), WORD, WORD),
    ),
    st.one_of(st.just(b""), WORD.map(lambda word: word.encode("utf-8", "surrogatepass"))),
    HEADERS,
    st.one_of(DATA, st.just("event").map(lambda _: b"event"), DATA),
)
Message = tuple[tuple[str, ...], bytes, bytes, bytes | tuple[bytes, int]]
"""Tokens of the subject, reply, headers, and data, or what it is many times."""


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[*HealthCheck],
)
@given(messages=st.lists(MESSAGE, min_size=5, max_size=20), data=st.data())
@pytest.mark.timeout(60 + 10 * EXAMPLES)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
async def test_whatever_stands_in_a_stream_its_readers_go_on(
    victims: Victims,
    messages: list[Message],
    data: st.DataObject,
) -> None:
    """Sizes, headers, subjects, encodings, on each stream and each tree of subjects."""
    honest = _event(victims.collection.uuid, victims.owner.uuid)
    names = {
        "container": victims.container.uuid,
        "collection": victims.collection.uuid,
        "owner": victims.owner.uuid,
    }
    for tokens, reply, headers, body in messages:
        subject = ".".join((tokens[0].format_map(names), *tokens[1:]))
        whole = body[0] * body[1] if isinstance(body, tuple) else body
        payload = data.draw(_altered(honest)) if whole == b"event" else whole
        sent = re.sub(rb"[ \t\r\n]", b"_", subject.encode("utf-8", "surrogatepass"))
        back = re.sub(rb"[ \t\r\n]", b"_", reply)
        await raw_sender.publish(victims.sender, sent, back, headers, payload)
    await victims.hear()
    victims.unharmed()


async def test_the_whole_of_each_stream_can_be_read(victims: Victims) -> None:
    """By sequence, from the first to the last, whatever was sent before."""
    for stream, pattern in (
        (streams.EVENTS, "arvados.events.>"),
        (streams.LOGS, "arvados.logs.>"),
        (streams.SYSTEM_LOGS, "arvados.syslog.>"),
    ):
        info = await victims.nats.stream_info(stream)
        assert info is not None
        found = [one.sequence async for one in victims.nats.history(stream, pattern)]
        assert found == sorted(set(found)) and len(found) >= info["state"]["messages"]
