# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Events reach exactly the readers that may see them, in order, and cost nothing for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract.places import Place
from arvados_nats.permissions.grants import DIRECT, OWNED, ClusterState, Grants
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import Identity
from sandbox.servers import api_server
from tests.support.made_events import COLLECTION, PROJECT, USER, made
from tests.support.waiting import until
from wsproxy.events.batch import Batch
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.principal import MAX_WAITING, Principal
from wsproxy.events.record_check import RecordCheck
from wsproxy.events.router import Router

KEY = "zzzzz-fngyi-key000000000000"
ELSEWHERE = "zzzzz-j7d0g-elsewhere000000"


class Inbox:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.batches: list[Batch] = []
        self.behind: int | None = None

    def deliver(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.sequences += [stored.sequence for stored in batch.events]

    def fall_behind(self, sequence: int) -> None:
        self.behind = sequence


class Arvados:
    """An API that answers what it is told to, and counts."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.calls = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await self.open.wait()
        status = self.answers.pop(0) if self.answers else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b'{"uuid": "x"}'})


@pytest.fixture
def arvados() -> Arvados:
    return Arvados()


@pytest.fixture
async def check(arvados: Arvados) -> AsyncIterator[PermissionCheck]:
    """Asks a real server on loopback."""
    async with api_server.run(arvados) as server, arvados_client.connect(server.url) as client:
        yield PermissionCheck(RecordCheck(client))


Connect = Callable[..., tuple[Principal, Inbox]]


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def connect(router: Router, check: PermissionCheck) -> Connect:
    """Make a reader with grants, known to the router, and their inbox."""

    def make(user: str, targets: dict[str, int] | None, **changes: Any) -> tuple[Principal, Inbox]:
        principal = Principal(
            Identity(f"token of {user}", user), check, lambda i, g: Judge(i, g, 0.0)
        )
        if targets is not None:
            principal.set_grants(Grants(user, is_active=True, targets=targets, **changes))
        check.add_token(principal.key, Token(f"secret-{user}"))
        inbox = Inbox()
        principal.sinks.append(inbox)
        router.add(principal)
        return principal, inbox

    return make


async def test_owner_and_object_lead_to_readers(router: Router, connect: Connect) -> None:
    """Those who reach neither are not even asked."""
    _, by_owner = connect("a", {PROJECT: DIRECT | OWNED})
    _, by_object = connect("b", {COLLECTION: DIRECT})
    _, no_traverse = connect("c", {PROJECT: DIRECT})
    _, stranger = connect("d", {ELSEWHERE: DIRECT | OWNED})
    _, admin = connect("e", {}, is_admin=True)
    router.dispatch([made(1)])
    assert [i.sequences for i in (by_owner, by_object, admin)] == [[1], [1], [1]]
    assert no_traverse.sequences == stranger.sequences == []


async def test_events_of_a_turn_come_together_and_are_shared(
    router: Router, connect: Connect
) -> None:
    """Two readers who see the same get the same batch; one who sees less gets one of their own."""
    _, one = connect("a", {PROJECT: DIRECT | OWNED})
    _, other = connect("b", {PROJECT: DIRECT | OWNED, ELSEWHERE: DIRECT | OWNED})
    _, less = connect("c", {COLLECTION: DIRECT})
    router.dispatch([made(1), made(2, "zzzzz-4zz18-other0000000000"), made(3)])
    assert (one.sequences, other.sequences, less.sequences) == ([1, 2, 3], [1, 2, 3], [1, 3])
    assert len(one.batches) == len(less.batches) == 1
    assert one.batches[0] is other.batches[0]


async def test_what_was_judged_once_is_judged_anew_after_any_change(
    router: Router, connect: Connect
) -> None:
    """New grants, a new reader and a lost one count from the next event on."""
    principal, inbox = connect("a", {PROJECT: DIRECT | OWNED})
    router.dispatch([made(1)])
    router.regrant(principal, Grants("a", targets={ELSEWHERE: DIRECT | OWNED}), 0)
    router.dispatch([made(2)])
    assert inbox.sequences == [1]
    router.regrant(principal, Grants("a", targets={PROJECT: DIRECT | OWNED}), 0)
    _, late = connect("b", {PROJECT: DIRECT | OWNED})
    router.dispatch([made(3)])
    router.remove(principal)
    router.dispatch([made(4)])
    assert (inbox.sequences, late.sequences) == ([1, 3], [3, 4])


async def test_a_grant_of_the_object_itself_is_not_taken_for_its_siblings(
    router: Router, connect: Connect
) -> None:
    """Nor its absence."""
    other = "zzzzz-4zz18-other0000000000"
    _, by_object = connect("a", {COLLECTION: DIRECT})
    _, by_owner = connect("b", {PROJECT: DIRECT | OWNED})
    router.dispatch([made(1, other)])
    router.dispatch([made(2), made(3, other)])
    router.dispatch([made(4)])
    assert by_object.sequences == [2, 4]
    assert by_owner.sequences == [1, 2, 3, 4]


async def test_trash_and_narrow_scopes_are_looked_at_for_each_event(
    router: Router, check: PermissionCheck
) -> None:
    """Time alone ends what a trash time allows, and a scope names single objects."""
    now = 100.0
    scope = f"GET /arvados/v1/collections/{COLLECTION}"

    def judge(identity: Identity, grants: Grants) -> Judge:
        return Judge(identity, grants, now)

    narrow = Principal(Identity("t", "a", scopes=(scope,)), check, judge)
    wide = Principal(Identity("u", "b"), check, judge)
    narrow.set_grants(Grants("a", targets={PROJECT: DIRECT | OWNED}))
    trashed = {"places": [Place(PROJECT, trash_at=200.0, frozen=True)]}
    wide.set_grants(Grants("b", targets={PROJECT: DIRECT | OWNED}))
    inboxes = Inbox(), Inbox()
    for principal, inbox in zip((narrow, wide), inboxes, strict=True):
        principal.sinks.append(inbox)
        router.add(principal)
    router.dispatch([made(1, facts=trashed), made(2, "zzzzz-4zz18-other0000000000", facts=trashed)])
    now = 300.0
    router.dispatch([made(3, facts=trashed)])
    assert [inbox.sequences for inbox in inboxes] == [[1], [1, 2]]


async def test_what_must_wait_comes_behind_what_was_seen_in_the_same_turn(
    router: Router, connect: Connect
) -> None:
    """A reader put on hold in the middle of a batch gets its beginning at once, then the rest."""
    principal, inbox = connect("a", {PROJECT: DIRECT | OWNED})
    router.before_dispatch.append(lambda e: router.hold(principal) if e.sequence == 2 else None)
    router.dispatch([made(1), made(2), made(3)])
    assert inbox.sequences == [1]
    router.regrant(principal, principal.grants)
    await until(lambda: inbox.sequences == [1, 2, 3])


async def test_an_event_about_nothing_reaches_nobody(router: Router, connect: Connect) -> None:
    """Not even an admin."""
    _, admin = connect("e", {}, is_admin=True)
    router.dispatch([made(1, None)])
    assert admin.sequences == []


async def test_a_watch_gets_its_object_only_and_only_if_readable(
    router: Router, connect: Connect
) -> None:
    """And a removed one nothing."""
    principal, all_events = connect("a", {PROJECT: DIRECT | OWNED})
    stranger, _ = connect("b", {ELSEWHERE: DIRECT | OWNED})
    mine, theirs = Inbox(), Inbox()
    router.watch(principal, COLLECTION, mine)
    router.watch(stranger, COLLECTION, theirs)
    other = "zzzzz-4zz18-other0000000000"
    for sequence, uuid in enumerate((COLLECTION, other, COLLECTION), start=1):
        router.dispatch([made(sequence, uuid)])
    router.unwatch(principal, COLLECTION, mine)
    router.unwatch(principal, COLLECTION, mine)
    router.dispatch([made(4)])
    assert mine.sequences == [1, 3]
    assert theirs.sequences == []
    assert all_events.sequences == [1, 2, 3, 4]


async def test_new_grants_count_from_the_next_event_on(router: Router, connect: Connect) -> None:
    """Gained and lost alike."""
    principal, inbox = connect("a", {})
    router.dispatch([made(1)])
    router.hold(principal)
    router.regrant(principal, Grants("a", targets={PROJECT: DIRECT | OWNED}))
    router.dispatch([made(2)])
    router.hold(principal)
    router.regrant(principal, Grants("a", targets={}))
    router.dispatch([made(3)])
    assert inbox.sequences == [2]


async def test_on_hold_events_wait_and_are_judged_by_the_new_grants(
    router: Router, connect: Connect
) -> None:
    """Also events that the old grants would not have led to them."""
    principal, inbox = connect("a", {ELSEWHERE: DIRECT | OWNED})
    _, other = connect("b", {PROJECT: DIRECT | OWNED, ELSEWHERE: DIRECT | OWNED})
    router.hold(principal)
    router.hold(principal)
    router.dispatch([made(1, owner=ELSEWHERE)])
    router.dispatch([made(2)])
    new = Grants("a", targets={PROJECT: DIRECT | OWNED})
    router.regrant(principal, new)
    await asyncio.sleep(0)
    assert inbox.sequences == []
    router.regrant(principal, new)
    await until(lambda: bool(inbox.sequences))
    assert inbox.sequences == [2]
    assert other.sequences == [1, 2]


async def test_what_waited_is_written_together(router: Router, connect: Connect) -> None:
    """Hundreds of readers are released at once; each gets one piece, in order."""
    principal, inbox = connect("a", {PROJECT: DIRECT | OWNED})
    router.hold(principal)
    router.dispatch([made(1), made(2)])
    router.dispatch([made(3)])
    router.regrant(principal, Grants("a", targets={PROJECT: DIRECT | OWNED}))
    await until(lambda: len(inbox.sequences) == 3)
    assert inbox.sequences == [1, 2, 3]
    assert len(inbox.batches) == 1


async def test_asking_keeps_the_order_of_one_and_holds_up_nobody_else(
    router: Router, connect: Connect, arvados: Arvados
) -> None:
    """A kind without a rule is asked of Arvados, once for its reader."""
    _, asking = connect("a", {PROJECT: DIRECT | OWNED})
    _, admin = connect("b", None)
    del admin
    _, other = connect("c", {PROJECT: DIRECT | OWNED})
    arvados.open.clear()
    router.dispatch([made(1, KEY, facts={"uuid": ""}, audience=[])])
    router.dispatch([made(2)])
    router.dispatch([made(3, KEY, facts={"uuid": ""}, audience=[])])
    await until(lambda: arvados.calls >= 3)
    assert asking.sequences == other.sequences == []
    arvados.open.set()
    await until(lambda: len(asking.sequences) == len(other.sequences) == 3)
    assert asking.sequences == other.sequences == [1, 2, 3]
    assert arvados.calls <= 4


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_no_is_silent_and_final(
    router: Router, connect: Connect, arvados: Arvados, status: int
) -> None:
    """docs/facts/arvados-demand.md A10; the events behind it come at once."""
    _, inbox = connect("a", None)
    arvados.answers = [status]
    router.dispatch([made(1)])
    router.dispatch([made(2, "zzzzz-4zz18-other0000000000")])
    await until(lambda: inbox.sequences == [2])
    assert arvados.calls == 2


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_no_answer_is_asked_again_and_never_a_no(
    router: Router, connect: Connect, arvados: Arvados, status: int
) -> None:
    """The event comes when Arvados can say yes."""
    _, inbox = connect("a", None)
    arvados.answers = [status, status]
    router.dispatch([made(1)])
    await until(lambda: inbox.sequences == [1])
    assert arvados.calls == 3


async def test_an_answer_from_before_a_change_is_not_used(
    router: Router, connect: Connect, arvados: Arvados
) -> None:
    """New grants come while the question is under way: they decide."""
    principal, inbox = connect("a", None)
    arvados.open.clear()
    router.dispatch([made(1)])
    await until(lambda: arvados.calls == 1)
    router.hold(principal)
    router.regrant(principal, Grants("a", targets={}))
    arvados.open.set()
    router.dispatch([made(2, USER, owner=USER)])
    await until(lambda: principal._working is None)
    assert inbox.sequences == []


async def test_too_much_behind_a_question_goes_back_to_the_stream(
    router: Router, connect: Connect, arvados: Arvados
) -> None:
    """Memory is bounded: the sink is told from where on to read."""
    principal, inbox = connect("a", None)
    arvados.open.clear()
    for sequence in range(1, MAX_WAITING + 3):
        router.dispatch([made(sequence)])
    assert inbox.behind == 0
    arvados.open.set()
    await until(lambda: principal._working is None)


async def test_role_groups_are_offered_to_everybody(router: Router, connect: Connect) -> None:
    """Every active user may see them, by no right of their own."""
    _, inbox = connect("a", {}, cluster=ClusterState(role_groups_visible=True))
    router.dispatch([made(1, ELSEWHERE, facts={"is_role": True})])
    router.dispatch([made(2, ELSEWHERE, facts={"is_role": False})])
    assert inbox.sequences == [1]


async def test_whose_rights_depend_on_whom(router: Router, connect: Connect) -> None:
    """On a user: themselves and who manages them, not everybody who can see their name."""
    himself, _ = connect(USER, {USER: DIRECT | OWNED})
    manager, _ = connect("manager", {USER: DIRECT | OWNED})
    connect("acquaintance", {USER: DIRECT})
    member, _ = connect("member", {PROJECT: DIRECT})
    assert router.reaching([USER]) == {himself, manager}
    assert router.reaching([PROJECT]) == {member}
    assert router.reaching([ELSEWHERE]) == set()


async def test_a_removed_principal_leaves_nothing_behind(router: Router, connect: Connect) -> None:
    """No event, and no place in the index."""
    principal, inbox = connect("a", {PROJECT: DIRECT | OWNED, COLLECTION: DIRECT})
    router.remove(principal)
    principal.end()
    router.dispatch([made(1)])
    assert inbox.sequences == []
    assert not router.reaching([PROJECT, COLLECTION, "a"])
