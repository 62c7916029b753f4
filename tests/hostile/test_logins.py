# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who keeps guessing tokens is slowed down, at both doors; who has a good one is not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados import turns as turns_module
from arvados_nats.arvados.identities import (
    OF_TOKEN,
    TURN_SECONDS,
    TURNS,
    Identities,
    Lifetimes,
)
from arvados_nats.arvados.refusal_limit import Allowance
from arvados_nats.arvados.tokens import Token
from arvados_nats.arvados.turns import Crowded, Turns
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.peers import network
from arvados_nats.permission_client import tokens_watch
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permission_client.own_tokens import OwnTokens
from arvados_nats.permissions.request_info import Holder, holder
from arvados_nats.permissions.rule import Identity
from arvados_nats.service import keys
from authcallout import connections as connections_module
from authcallout.admissions import CONTAINER
from authcallout.callout import Callout, LoginLimits
from authcallout.callout_request import CalloutRequest
from authcallout.callout_response import Admission
from authcallout.connections import Connection, Connections
from authcallout.nkey_jwt import Signer
from sandbox.model.actors import Actor
from tests.support.clients import v1 as clients
from tests.support.waiting import until
from tests.support.worlds.proxy import own
from tests.support.worlds.site import Site
from wsproxy.transport.close_codes import CloseCode
from wsproxy.v1.session import MAX_REFUSALS

HERE = "192.0.2.7"
SMALL = Allowance(burst=3, per_second=0.0)
_CURRENT = "GET /arvados/v1/api_client_authorizations/current"


@contextlib.asynccontextmanager
async def asking(site: Site, **options: Any) -> AsyncIterator[Identities]:
    """Identities that both doors would have, with a small allowance."""
    async with arvados_client.connect(site.api.url) as arvados:
        tokens = OwnTokens(arvados.cluster_id, site.nats)
        yield Identities(arvados, tokens, **{"of_address": SMALL, **options})


async def guess(identities: Identities, number: object, address: str = HERE) -> None:
    with pytest.raises(Refused):
        await identities.of(Token(f"guess{number}"), address)


def flood(identities: Identities, numbers: Iterable[object]) -> list[asyncio.Task[Identity]]:
    """Guesses that come together; some of them are never asked about."""
    tokens = [Token(f"guess{number}") for number in numbers]
    return [asyncio.create_task(identities.of(token, HERE)) for token in tokens]


async def test_only_what_arvados_was_asked_counts(site: Site) -> None:
    """A client that retries one bad token for ever asks once in a while, and harms nobody."""
    async with asking(site) as identities:
        for _ in range(50):
            await guess(identities, "the same")
        assert not identities._limit.exhausted(HERE)
        for number in range(3):
            await guess(identities, number)
        assert identities._limit.exhausted(HERE)
        assert not identities._limit.exhausted("192.0.2.8")


async def test_a_machine_has_one_allowance(site: Site) -> None:
    """Whichever address of its network each guess comes from."""
    async with asking(site) as identities:
        for number in range(3):
            await guess(identities, number, f"2001:db8::{number}")
        assert identities._limit.exhausted(network("2001:db8::ffff"))
        assert not identities._limit.exhausted(network("2001:db8:0:1::1"))


async def test_arvados_is_not_asked_about_invented_tokens(site: Site, alice: Actor) -> None:
    """Its database tells which uuids of this cluster there are; a peer's and a wrong secret it does
    not know of."""
    uuid, secret = alice.token.split("/")[1:]
    invented = [f"v2/{uuid[:12]}{number:015}/{secret}" for number in range(1, 20)]
    async with asking(site, of_address=Allowance(burst=100, per_second=0.0)) as identities:
        before = site.backend.faults.count(_CURRENT)
        for token in invented:
            with pytest.raises(Refused):
                await identities.of(Token(token), HERE)
        assert site.backend.faults.count(_CURRENT) == before
        for token in (f"v2/{uuid}/wrong", f"v2/bbbbb{uuid[5:]}/{secret}", "nouuid"):
            with pytest.raises(Refused):
                await identities.of(Token(token), HERE)
        assert site.backend.faults.count(_CURRENT) == before + 3
        assert (await identities.of(Token(alice.token), HERE)).user_uuid == alice.uuid


async def test_a_refusal_is_remembered_without_what_its_raising_saw(site: Site) -> None:
    """Ten thousand of them, each with an answer of Arvados and its buffers, took 120 MiB."""
    async with asking(site) as identities:
        await guess(identities, 1)
        (remembered,) = identities._refusals.values()
        assert not [one for one in gc.get_referents(remembered) if isinstance(one, Exception)]


async def test_a_known_token_comes_in_whatever_its_address_did(
    site: Site, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its answer is old and Arvados is asked again; a new one finds the turns taken."""
    monkeypatch.setattr("arvados_nats.arvados.identities.TURNS", 0)
    monkeypatch.setattr(turns_module, "WAITING", 0)
    async with asking(site, lifetimes=Lifetimes(known=0.0)) as identities:
        await identities.of(Token(alice.token), HERE)
        for number in range(3):
            await guess(identities, number)
        again = await site.cluster.token(alice)
        bare = again.token.split("/")[2]
        with pytest.raises(Unavailable):
            await identities.of(Token(bare), HERE)
        for _ in range(3):
            assert (await identities.of(Token(alice.token), HERE)).user_uuid == alice.uuid
        assert (await identities.of(Token(bare), "192.0.2.8")).user_uuid == alice.uuid
        assert (await identities.of(Token(bare), HERE)).user_uuid == alice.uuid
        assert (await identities.of(Token(again.token), HERE)).user_uuid == alice.uuid


async def test_a_new_token_gets_its_turn_among_the_bad_ones(site: Site, alice: Actor) -> None:
    """Beyond the allowance questions take turns; nobody who has a good token is refused."""
    async with asking(site) as identities:
        for number in range(3):
            await guess(identities, number)
        guesses = flood(identities, range(100, 250))
        await asyncio.sleep(0)
        assert (await identities.of(Token(alice.token), HERE)).user_uuid == alice.uuid
        bare = Token((await site.cluster.token(alice)).token.split("/")[2])
        while True:  # nothing tells it from a guess
            with contextlib.suppress(Unavailable):
                assert (await identities.of(bare, HERE)).user_uuid == alice.uuid
                break
        ends = await asyncio.gather(*guesses, return_exceptions=True)
        assert {type(end) for end in ends} <= {Refused, Crowded}


async def test_a_flood_holds_few_places_while_arvados_hangs(site: Site, alice: Actor) -> None:
    """Where each waited to be asked about, logins that could be decided found no place, and fewer
    were begun for being slow (`authcallout.pace`); of Arvados it is no more than its part."""
    async with asking(site) as identities:
        for number in range(3):
            await guess(identities, number)
        with site.backend.faults.hanging(_CURRENT):
            guesses = flood(identities, range(100, 400))
            await until(
                lambda: sum(not one.done() for one in guesses) <= 2 * TURNS, "few of them wait"
            )
        await asyncio.gather(*guesses, return_exceptions=True)
        began, before = asyncio.get_running_loop().time(), site.backend.faults.count(_CURRENT)
        for number in itertools.count(1000, 50):
            seconds = asyncio.get_running_loop().time() - began
            if seconds > 3 * TURN_SECONDS:
                break
            await asyncio.wait(flood(identities, range(number, number + 50)))
        asked = site.backend.faults.count(_CURRENT) - before
        assert asked <= TURNS * (seconds / TURN_SECONDS + 2)


async def test_a_token_of_this_cluster_goes_before_a_flood_of_invented_ones(
    site: Site, alice: Actor
) -> None:
    """The newest go first, so a flood that goes on is always before who came earlier; but its
    tokens, unlike a good one, have no uuid that the database knows."""
    fresh = Token((await site.cluster.token(alice)).token)
    async with asking(site, calls=1) as identities:
        for number in range(3):
            await guess(identities, f"{fresh.uuid}-{number}")
        with site.backend.faults.hanging(_CURRENT):
            before = site.backend.faults.count(_CURRENT)
            guesses = flood(identities, [f"{fresh.uuid}-first"])
            await until(lambda: site.backend.faults.count(_CURRENT) > before, "one is asked about")
            good = asyncio.create_task(identities.of(fresh, HERE))
            await until(lambda: identities._calls.waiting, "the good one waits")
            guesses += flood(identities, [f"{fresh.uuid}-then{number}" for number in range(100)])
            await asyncio.sleep(0)
        assert (await good).user_uuid == alice.uuid
        assert site.backend.faults.count(_CURRENT) <= before + 4
        await asyncio.gather(*guesses, return_exceptions=True)


async def test_who_is_known_comes_in_while_arvados_hangs(site: Site, alice: Actor) -> None:
    """Their old answer is used at once, and not after Arvados' time is over, when nobody waits for
    it any more; once the token is reported gone nobody comes in by it."""
    token = Token((await site.cluster.token(alice)).token)
    assert token.uuid
    async with asking(site, lifetimes=Lifetimes(known=0.0)) as identities:
        await identities.of(token, HERE)
        with site.backend.faults.hanging(_CURRENT):
            for _ in range(3):
                async with asyncio.timeout(9):  # Arvados is waited for for ten seconds
                    assert (await identities.of(token, HERE)).user_uuid == alice.uuid
            late = asyncio.create_task(identities.of(token, HERE))
            await asyncio.sleep(0)
            identities.forget(token.uuid)
            with pytest.raises(Unavailable):
                await late


async def test_wrong_secrets_for_one_token_go_first_a_few_times(site: Site, alice: Actor) -> None:
    """Uuids are no secrets: who knows one waits like the others after that, and its holder too."""
    fresh = Token((await site.cluster.token(alice)).token)
    async with asking(site) as identities:
        for number in itertools.count():
            if identities._guesses.exhausted(fresh.uuid):
                break
            with pytest.raises(Refused):
                await identities.of(Token(f"v2/{fresh.uuid}/wrong{number}"), HERE)
        assert number >= OF_TOKEN.burst
        assert (await identities.of(fresh, HERE)).user_uuid == alice.uuid


async def test_a_token_with_more_scopes_than_are_looked_at_lets_nobody_in(
    site: Site, alice: Actor
) -> None:
    """Each is compared with each event; and what is told of a token stands in a message with what
    is told of others."""
    wide = [f"GET /arvados/v1/collections/{number}" for number in range(20_000)]
    fat = [Token((await site.cluster.token(alice, scopes=wide)).token) for _ in range(12)]
    async with asking(site) as identities:
        with pytest.raises(Refused, match="more scopes"):
            await identities.of(fat[0], HERE)
        few = Token((await site.cluster.token(alice, scopes=wide[:40])).token)
        assert (await identities.of(few, HERE)).scopes == tuple(wide[:40])
    told = await tokens_watch.live(site.nats, [str(one.uuid) for one in (*fat, few)])
    assert {uuid: len(state.scopes) for uuid, state in told.items()} == {
        **dict.fromkeys((str(one.uuid) for one in fat), 0),
        str(few.uuid): 40,
    }


async def test_who_is_sent_away_and_gives_up_at_once_gives_back_no_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They had none: with each one more would be asked at a time."""
    monkeypatch.setattr(turns_module, "WAITING", 1)
    turns, under_way, go_on = Turns(1), 0, asyncio.Event()

    async def work() -> None:
        nonlocal under_way
        async with turns.taken():
            under_way += 1
            await go_on.wait()

    tasks = [asyncio.create_task(work())]
    await asyncio.sleep(0)
    for _ in range(5):
        tasks += [asyncio.create_task(work()) for _ in range(2)]
        await asyncio.sleep(0)
        tasks[-2].cancel()  # it was sent away for the other in this very turn of the loop
        await asyncio.wait(tasks[-2:-1])
    assert (under_way, turns._under_way) == (1, 1)
    go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert turns._under_way == 0


async def test_logins_of_one_user_that_come_together_are_bounded_too(
    site: Site, alice: Actor
) -> None:
    """Each is counted before the next is looked at, however long each was waited for."""
    assert alice.token_uuid is not None
    index, most = Connections(None), 3  # type: ignore[arg-type]
    index._recounted_at = asyncio.get_running_loop().time() + 3600  # as if all were there

    def admitted(
        connection: Connection, _: Token, identity: Identity, admission: Admission
    ) -> None:
        if owner := holder(admission.name):
            index.add(connection, owner)

    async with asking(site) as identities:
        callout = Callout(
            identities,
            GrantsCache(site.nats),
            limits=LoginLimits(budget=60.0),
            admitted=admitted,
            room=functools.partial(index.room, per_user=most),
            made_for_a_machine=lambda _: False,
        )
        signer = Signer(keys.load(site.keys_folder, "issuer"))
        now = asyncio.get_running_loop().time()
        user_nkey = keys.load(site.keys_folder, "issuer").public
        await asyncio.gather(
            *(
                callout.answer(
                    CalloutRequest(
                        user_nkey, "SERVER", "", cid, HERE, "Client", "nats", "", Token(alice.token)
                    ),
                    now,
                    signer,
                )
                for cid in range(20)
            )
        )
    assert len(index) == most


@pytest.mark.parametrize("in_time", [3600, -1])
async def test_of_those_who_wait_the_oldest_is_next(
    monkeypatch: pytest.MonkeyPatch, in_time: float
) -> None:
    """Also of those who come too late; who goes before their turn leaves it to another."""
    monkeypatch.setattr(turns_module, "WAITING", 3)
    monkeypatch.setattr(turns_module, "IN_TIME", in_time)
    turns, order, first = Turns(1), list[int](), asyncio.Event()

    async def ask(number: int) -> None:
        async with turns.taken():
            order.append(number)
            if number == 0:
                await first.wait()

    asked = []
    for number in range(6):
        asked.append(asyncio.create_task(ask(number)))
        await asyncio.sleep(0)
    asked[4].cancel()
    first.set()
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(end) for end in ends[1:3]] == [Crowded, Crowded]
    assert order == [0, 3, 5]
    assert (turns._under_way, turns.waiting) == (0, 0)


async def test_who_is_still_in_time_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a flood the oldest has given up meanwhile, and comes back."""
    monkeypatch.setattr(turns_module, "IN_TIME", 30)
    turns, order, first = Turns(1), list[str](), asyncio.Event()

    async def ask(name: str) -> None:
        async with turns.taken():
            order.append(name)
            await first.wait()

    asked = []
    for name in ("under way", "late", "in time", "last"):
        asked.append(asyncio.create_task(ask(name)))
        await asyncio.sleep(0)
    turns._waiting[0] = (turns._waiting[0][0] - 60, turns._waiting[0][1])
    first.set()
    await asyncio.gather(*asked)
    assert order == ["under way", "in time", "last", "late"]


async def test_bad_tokens_push_no_good_one_out(
    site: Site, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of either has a bound of its own."""
    monkeypatch.setattr("arvados_nats.arvados.identities.REFUSALS", 5)
    async with asking(site, remembered=1) as identities:
        await identities.of(Token(alice.token), HERE)
        for number in range(20):
            await guess(identities, number)
        assert Token(alice.token).digest in identities._answers
        assert len(identities._refusals) == 5


async def test_a_connection_sends_few_bad_tokens(site: Site, alice: Actor) -> None:
    """Also one that began with a good one."""
    async with own(site) as (base, _), clients.connected(base, alice) as client:
        for number in range(MAX_REFUSALS):
            await client.send("auth", {"token": f"guess{number}"})
        assert await client.closed() == CloseCode.TOKEN_INVALID
        assert len(client.of("error")) == MAX_REFUSALS


def identity(user: str, token: str, container: str | None = None) -> Identity:
    return Identity(token, user, container_uuid=container)


async def test_native_connections_of_one_user_are_bounded(
    site: Site, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody is refused the servers are asked: what went with one does not count."""
    monkeypatch.setattr(connections_module, "PER_CONTAINER", 2)
    assert alice.token_uuid is not None
    seed = keys.load(site.keys_folder, "sys").text
    async with nats_client.connect([site.server.url], name="test", seed=seed) as system:
        index = Connections(system)
        for cid in range(3):
            index.add(Connection("GONE", cid), Holder(alice.uuid, alice.token_uuid, "x"))
        who = identity(alice.uuid, alice.token_uuid)
        assert await index.room(who, per_user=4)
        assert await index.room(who, per_user=0)
        assert await index.room(who, per_user=3)
        assert len(index) == 0
        for cid in range(3):
            index.add(Connection("LATER", cid), Holder(alice.uuid, alice.token_uuid, "x"))
        assert not await index.room(who, per_user=3)
        container = identity(alice.uuid, "zzzzz-gj3su-000000000container", "a container")
        for cid in range(2):
            assert await index.room(container, per_user=3)
            index.add(
                Connection("LATER", 10 + cid),
                Holder(alice.uuid, container.token_uuid, CONTAINER),
            )
        assert not await index.room(container, per_user=100)


_names = st.sampled_from(["a", "b", "c"])
_acts = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5), _names, _names, st.sampled_from(["x", CONTAINER]))
)


@given(_acts)
async def test_every_index_of_connections_holds_the_same(
    acts: list[tuple[bool, int, str, str, str]],
) -> None:
    """After any that come, go, and come as somebody else."""
    index = Connections(None)  # type: ignore[arg-type]
    open_now: dict[int, Holder] = {}
    for comes, cid, user, token, fingerprint in acts:
        if comes:
            open_now[cid] = Holder(user, token, fingerprint)
            index.add(Connection("SERVER", cid), open_now[cid])
        else:
            open_now.pop(cid, None)
            index._remove(Connection("SERVER", cid))
    for kept in (index._of_user, index._alike):
        assert all(kept.values())
        assert sum(map(len, kept.values())) == len(open_now) == len(index)
