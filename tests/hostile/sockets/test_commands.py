# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Commands of both protocols: nobody says more than has a bound, and nothing is fatal."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect as connect_raw
from websockets.exceptions import ConnectionClosed

from arvados_nats.errors import BadInput
from sandbox.model.actors import Actor
from tests.support.clients import v1 as clients
from tests.support.clients.v0 import client as v0_client
from tests.support.worlds.proxy import own, until_equal
from tests.support.worlds.site import Site
from wsproxy.transport.limits import Limits
from wsproxy.v0 import messages as messages_v0
from wsproxy.v0.messages import Subscribe, Unsubscribe

EXAMPLES = int(os.environ.get("ARVADOS_NATS_FUZZ_EXAMPLES", "100"))
KIB = 1024
WORD = "w" * 1000

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**320)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=30,
)


def subscribe(filters: Any) -> str:
    return json.dumps({"method": "subscribe", "filters": filters})


def answered(text: str | bytes) -> Subscribe | Unsubscribe | None:
    """The command, or None where the answer is 400."""
    try:
        return messages_v0.command(text)
    except BadInput:
        return None


@settings(max_examples=EXAMPLES)
@given(_json)
def test_any_filters_are_a_command_or_400(filters: Any) -> None:
    """Numbers that no float holds as well; and an unsubscribe with the same finds it."""
    made = answered(subscribe(filters))
    other = answered(json.dumps({"method": "unsubscribe", "filters": filters}))
    assert (made is None) == (other is None)
    if made is not None and other is not None:
        assert made.filters == other.filters


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_of_any_depth_is_a_command_or_400(opening: str) -> None:
    """Where the parser still takes what the writer does not, too."""
    closing = "]" if opening == "[" else "}"
    for depth in range(0, 3000, 7):
        nested = opening * depth + "1" + closing * depth
        answered(f'{{"method": "subscribe", "filters": [["a", "b", {nested}]]}}')


def test_of_filters_nothing_is_kept_but_what_they_let_through() -> None:
    """A digest stands for the text, of what is ignored as well as of what is not."""
    ignored = messages_v0.command(subscribe([["uuid", "in", [WORD] * 60]]))
    assert isinstance(ignored, Subscribe)
    assert (len(ignored.filters), ignored.tests) == (16, ())


@pytest.mark.parametrize("one", [1, 1.0])
def test_filters_are_compared_as_go_compares_them(one: float) -> None:
    """All numbers are floats there; order, kind and absence count."""
    texts = [subscribe([["event_type", "in", [one, "x"]]]), subscribe([[one, one, one]])]
    same = [subscribe([["event_type", "in", [1, "x"]]]), subscribe([[1, 1.0, 1, "fourth"]])]
    for text, other in zip(texts, same, strict=True):
        assert messages_v0.command(text) == messages_v0.command(other)
    forms: list[Any] = [None, [], [[]], [["a"]], [["a", None, "b"]], [["a", "b"]], [[True]], [[1]]]
    digests = {messages_v0.command(subscribe(form)).filters for form in forms}
    assert len(digests) == len(forms)


def test_more_filters_than_anybody_has_are_400() -> None:
    """Each is looked at for each event."""
    most = [["created_at", ">", "2020-01-01T00:00:00Z"]] * messages_v0.MAX_FILTERS
    assert answered(subscribe(most)) is not None
    assert answered(subscribe([*most, *most[:1]])) is None


@pytest.mark.parametrize("query", ["", "?api_token=nonsense"])
@pytest.mark.parametrize("size", [2 * KIB * KIB, 64 * KIB + 1])
async def test_nobody_sends_a_message_over_64_kib(site: Site, query: str, size: int) -> None:
    """It is not even read."""
    frame = subscribe([["event_type", "in", [1]]])
    frame += " " * (size - len(frame))
    async with connect_raw(site.websocket_url + query) as socket:
        with pytest.raises(ConnectionClosed):
            await socket.send(frame)
            await socket.recv()
        assert socket.close_code == 1009


@pytest.mark.parametrize("query", ["", "?api_token=nonsense"])
async def test_who_is_not_known_says_64_kib_at_most(site: Site, query: str) -> None:
    """In all: commands of any kind count, also those that make no sense."""
    async with connect_raw(site.websocket_url + query) as socket:
        for _ in range(64):
            await socket.send(WORD)
            assert json.loads(await socket.recv()) == {"status": 400}
        with pytest.raises(ConnectionClosed):
            for _ in range(64):
                await socket.send(WORD)
                await socket.recv()
        assert socket.close_code == 1008


async def test_subscriptions_have_a_budget_of_bytes(site: Site, alice: Actor) -> None:
    """Over v0 the answer is 400, and what is taken back makes room."""
    most = Limits().subscription_bytes
    async with own(site) as (base, services):
        async with v0_client(f"{base}/websocket", alice.token) as socket:
            await until_equal(lambda: services.logins.sessions_of(alice.uuid), 1)
            frames = [subscribe([["event_type", "in", [WORD] * 60 + [str(n)]]]) for n in range(6)]
            fit = most // len(frames[0])
            for number, frame in enumerate(frames):
                await socket.socket.send(frame)
                assert await socket.status() == (200 if number < fit else 400)
            await socket.socket.send(frames[0].replace("subscribe", "unsubscribe"))
            assert await socket.status() == 200
            await socket.socket.send(frames[5])
            assert await socket.status() == 200


async def test_subscriptions_of_v1_have_it_as_well(site: Site, alice: Actor) -> None:
    """The error is that of too many."""
    base = site.websocket_url.removesuffix("/websocket")
    async with clients.connected(base, alice) as client:
        words = ["w" * 255] * 240
        fit = Limits().subscription_bytes // (240 * 258)
        for number in range(fit):
            await client.subscribe(str(number), events={"event_types": words})
        await client.send("subscribe", {"id": "more", "events": {"objects": words}})
        await client.until("error", code="too_many", id="more")
        await client.send("unsubscribe", {"id": "0"})
        await client.subscribe("again", events={"event_types": words})
