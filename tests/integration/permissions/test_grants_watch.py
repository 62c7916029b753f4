# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Services that rely on grants: asked together, kept while nobody answers, told after outages."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from arvados_nats.contract import subjects
from arvados_nats.errors import Unavailable
from arvados_nats.nats.client import Message
from arvados_nats.nats.jetstream import REQUEST_TIMEOUT
from arvados_nats.permission_client import grants_cache, grants_messages, grants_watch, tokens_watch
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permission_client.grants_messages import (
    FAILED,
    PART,
    GrantsAnswer,
    GrantsAnswered,
    GrantsChanged,
    GrantsQuestion,
    user_grants,
)
from arvados_nats.permissions.grant_subjects import Change
from arvados_nats.permissions.grants import DIRECT, OWNED, Grants
from arvados_nats.permissions.rule import Identity
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from tests.support.background import background
from tests.support.waiting import until
from tests.support.worlds.permissions import FAST, SLOW, PermissionWorld, uuids


class Follower:
    """A service with readers connected, as authcallout is one."""

    def __init__(self, here: PermissionWorld, *users: Actor, refresh: float = 3600) -> None:
        self.grants_cache = GrantsCache(here.reader, refresh=refresh)
        self.changes: list[tuple[Change, Grants]] = []
        self.ready = asyncio.Event()
        self._here = here
        self._users = {user.uuid for user in users}

    async def follow(self) -> None:
        async def moved(change: Change, grants: Grants) -> None:
            self.changes.append((change, grants))

        await grants_watch.follow(
            self._here.reader, self.grants_cache, lambda: self._users, moved, self.ready.set
        )

    def of(self, user: Actor) -> list[Change]:
        return [change for change, _ in self.changes if change.user_uuid == user.uuid]


async def test_questions_at_the_same_time_travel_as_one(here: PermissionWorld) -> None:
    """A hundred logins of fifty users ask once."""
    notes: list[GrantsAnswered] = []

    async def answered(message: Message) -> None:
        notes.append(grants_messages.answered(message.data))

    users = [f"zzzzz-tpzed-{n:015d}" for n in range(50)]
    async with here.publishing(with_events=False):
        await here.nats.subscribe(subjects.GRANTS_ANSWERED, answered)
        await here.nats.flush()
        found = await asyncio.gather(*(here.grants_cache.of(user) for user in users * 2))
        await until(lambda: notes, "the answer is noted")
        again = await here.grants_cache.of(users[0])

    assert [grants.user_uuid for grants in found] == users * 2
    assert again is found[0]
    assert [set(note.users) for note in notes] == [set(users)]


async def test_an_answer_of_any_size_arrives(here: PermissionWorld) -> None:
    """Tens of thousands of shared objects are more than one message can hold."""
    alice = await here.cluster.user("alice")
    connection = await asyncpg.connect(here.database.dsn)
    await connection.execute(
        "INSERT INTO materialized_permissions"
        " SELECT $1, 'zzzzz-4zz18-' || left(md5(g::text), 15), 1, true"
        " FROM generate_series(1, 60000) AS g",
        alice.uuid,
    )
    await connection.close()
    sizes: list[int] = []
    async with here.publishing(with_events=False):
        question = grants_messages.encode(GrantsQuestion({alice.uuid: ""}))
        async for message in here.reader.request_all(subjects.GRANTS_GET, question, window=3):
            sizes.append(len(message.data))
            if message.headers[PART].partition("/")[0] == message.headers[PART].partition("/")[2]:
                break
        grants = await here.grants_cache.of(alice.uuid)

    assert len(sizes) > 1
    assert max(sizes) <= grants_messages.PART_BYTES
    assert sum(bool(bits & DIRECT) for bits in grants.targets.values()) > 60_000


async def test_a_change_does_not_wait_for_a_round_over_everybody(here: PermissionWorld) -> None:
    """Few are asked about at once, and whoever has changed meanwhile is next."""
    everybody = {f"zzzzz-tpzed-{n:015}" for n in range(130)}
    changed = "zzzzz-tpzed-000000000000042"
    asked: list[set[str]] = []
    done = asyncio.Event()

    async def answer(message: Message) -> None:
        asked.append({*grants_messages.question(message.data).users})
        if len(asked) == 1:
            told = grants_messages.encode(GrantsChanged(changed, 2, "event", narrows=True))
            await here.nats.publish(subjects.grants_changed(changed), told)
            await here.nats.flush()
        for headers, piece in grants_messages.parts(GrantsAnswer(1, 0.0, None, [], [*asked[-1]])):
            await here.nats.publish(message.reply, piece, headers=headers)
        if len(asked) > 1 and set().union(*asked) == everybody:
            done.set()

    async def moved(_: Change, __: Grants) -> None:
        pass

    await here.nats.subscribe(subjects.GRANTS_GET, answer)
    await here.nats.flush()
    follow = grants_watch.follow(here.reader, here.grants_cache, lambda: everybody, moved)
    async with background(follow), asyncio.timeout(60):
        await done.wait()

    assert max(map(len, asked)) <= 50
    assert {changed} in asked[1:3]


async def test_nobody_there_is_said_at_once(here: PermissionWorld) -> None:
    """Without a publisher an unknown user is refused, without waiting for a timeout."""
    started = asyncio.get_running_loop().time()

    with pytest.raises(Unavailable):
        await here.grants_cache.of("zzzzz-tpzed-000000stranger0")

    assert asyncio.get_running_loop().time() - started < REQUEST_TIMEOUT


async def test_what_is_known_serves_while_nobody_answers(here: PermissionWorld) -> None:
    """Up to a bound, and not once it is known to be outdated."""
    alice = await here.cluster.user("alice")
    patient = GrantsCache(here.reader, refresh=0)
    strict = GrantsCache(here.reader, refresh=0, stale=0)
    async with here.publishing(with_events=False):
        known = await patient.of(alice.uuid)
        await strict.of(alice.uuid)

    assert (await patient.of(alice.uuid)).targets == known.targets
    with pytest.raises(Unavailable):
        await strict.of(alice.uuid)
    patient.forget(alice.uuid, known.generation + 1)
    with pytest.raises(Unavailable):
        await patient.of(alice.uuid)


async def test_what_is_told_and_known_already_is_not_asked_again(here: PermissionWorld) -> None:
    """A reader asks with the event, before the publisher has told; another version is asked for."""
    alice = "zzzzz-tpzed-0000000000alice"
    answer = GrantsAnswer(5, 0.0, True, [user_grants(alice, Grants(alice), "new")], [])
    asked: list[Message] = []

    async def reply(message: Message) -> None:
        asked.append(message)
        here.grants_cache.forget(alice, 7, "new")  # told while the answer is on its way
        for headers, piece in grants_messages.parts(answer):
            await here.nats.publish(message.reply, piece, headers=headers)

    subscription = await here.nats.subscribe(subjects.GRANTS_GET, reply)
    await here.nats.flush()
    first = await here.grants_cache.of(alice)
    here.grants_cache.forget(alice, 9, "new")
    again = await here.grants_cache.of(alice)
    await subscription.unsubscribe()

    assert len(asked) == 1
    assert again.targets is first.targets and again.generation == 9
    here.grants_cache.forget(alice, 10, "newer")
    assert here.grants_cache.is_outdated(alice)


async def test_what_a_link_gives_is_asked_at_its_head_alone(here: PermissionWorld) -> None:
    """What is known, with what is read there, is what a whole answer would be: of shares with roles
    and users, inside of what is shared, and of what is taken away. A role is never asked about so,
    and the publisher's own word is no news then."""
    cluster = here.cluster
    alice, bob, carol = [await cluster.user(name) for name in ("alice", "bob", "carol")]
    role = await cluster.role("role", bob, carol)
    tree = await cluster.project("tree", owner=alice)
    inner = await cluster.project("inner", owner=tree)
    readers = [bob.uuid, carol.uuid]
    part, whole = GrantsCache(here.reader), GrantsCache(here.reader)
    links = []
    async with here.publishing(SLOW, with_events=False):
        await part.renew(readers)
        began = part.held(bob.uuid)

        async def compare(group: Record) -> None:
            await part.renew(readers, (group.uuid,))
            await whole.renew(readers)
            for reader in readers:
                held, told = part.held(reader), whole.held(reader)
                assert held and told and began
                assert held.targets == told.targets
                assert held.generation <= began.generation
                part_version, version = (c._entries[reader].version for c in (part, whole))
                assert part_version == version

        for group, whom, level in (
            (tree, role, "can_read"),
            (inner, role, "can_manage"),
            (inner, bob, "can_write"),
            (tree, carol, "can_manage"),
        ):
            links.append((group, await cluster.share(group, whom, level)))
            await compare(group)
        assert (part.held(bob.uuid) or Grants("")).targets[tree.uuid] & OWNED
        for group, link in links:
            await cluster.delete(link, cluster.root)
            await compare(group)
        told = whole.held(bob.uuid)
        assert told and tree.uuid not in told.targets
        part.forget(bob.uuid, told.generation, whole._entries[bob.uuid].version)
        assert not part.is_outdated(bob.uuid)
        await part.renew(readers, (role.uuid,))
        assert began and (part.held(carol.uuid) or Grants("")).generation > began.generation


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_database_that_went_back_is_believed(
    here: PermissionWorld, monkeypatch: pytest.MonkeyPatch, taken_over: bool
) -> None:
    """After a failover numbers may fall; what was read later in time holds, once answers can no
    longer have crossed, or at once where a publisher said that it takes over."""
    alice = "zzzzz-tpzed-0000000000alice"
    project = "zzzzz-j7d0g-000000000000001"
    answers = [
        GrantsAnswer(generation, 0.0, True, [user_grants(alice, grants, f"{grants}")], [])
        for generation, grants in (
            (9, Grants(alice, targets={project: OWNED})),
            (5, Grants(alice)),
            (5, Grants(alice)),
        )
    ]

    async def answer(message: Message) -> None:
        for headers, piece in grants_messages.parts(answers.pop(0)):
            await here.nats.publish(message.reply, piece, headers=headers)

    subscription = await here.nats.subscribe(subjects.GRANTS_GET, answer)
    await here.nats.flush()
    await here.grants_cache.renew([alice])
    await here.grants_cache.renew([alice])
    crossed = here.grants_cache.held(alice)
    if taken_over:
        anew = asyncio.Event()
        await grants_watch.hear(here.reader, here.grants_cache, lambda _: None, anew.set)
        await here.reader.flush()
        await here.nats.publish(subjects.GRANTS_STARTED)
        await asyncio.wait_for(anew.wait(), 60)
    else:
        monkeypatch.setattr(grants_cache, "_CROSSING", 0.0)
    await here.grants_cache.renew([alice])
    later = here.grants_cache.held(alice)
    await subscription.unsubscribe()

    assert crossed is not None and crossed.targets
    assert later is not None and not later.targets


async def test_a_database_that_is_away_is_told(here: PermissionWorld) -> None:
    """The publisher answers that it cannot say; it does not answer from memory."""
    async with here.publishing(with_events=False):
        connection = await asyncpg.connect(here.database.dsn)
        await connection.execute("REVOKE SELECT ON materialized_permissions FROM arvados_nats")
        await connection.close()
        question = grants_messages.encode(GrantsQuestion({here.cluster.root.uuid: ""}))
        reply = await here.reader.request(subjects.GRANTS_GET, question)
        broken = await here.reader.request(subjects.GRANTS_GET, b"{]")
        many = grants_messages.encode(GrantsQuestion(dict.fromkeys(map(str, range(1001)), "")))
        crowd = await here.reader.request(subjects.GRANTS_GET, many)
        tokens = await here.reader.request(subjects.TOKENS_GET, b"7")

    for message in (reply, broken, crowd, tokens):
        assert message.headers[FAILED]
        assert not message.data


async def test_a_follower_is_told_what_moved(here: PermissionWorld) -> None:
    """The users in use, each with what was lost and gained, and the grants that hold now."""
    cluster = here.cluster
    alice, bob, carol = [await cluster.user(name) for name in ("alice", "bob", "carol")]
    project = await cluster.project("p", owner=alice)
    await cluster.share(project, bob)
    await cluster.share(project, carol)
    follower = Follower(here, alice, bob)
    async with here.publishing(), background(follower.follow()):
        await follower.ready.wait()
        for user in (alice, bob, carol):
            await follower.grants_cache.of(user.uuid)
        await here.watch()
        for user in (bob, carol):
            await cluster.unshare(project, user)
        await until(lambda: follower.of(bob), "bob's loss is told")
        await cluster.share(project, bob)
        await until(lambda: len(follower.of(bob)) == 2, "bob's gain is told")

    assert {change.user_uuid for change, _ in follower.changes} == {bob.uuid}
    lost, gained = follower.of(bob)
    assert lost.narrows and project.uuid in lost.lost
    assert not gained.narrows and project.uuid in gained.gained
    assert follower.changes[-1][1].targets[project.uuid] & OWNED


async def test_a_loss_of_what_was_given_out_meanwhile_is_told(here: PermissionWorld) -> None:
    """Gained and lost again between two looks is no change to the first grants, but to whoever was
    let in with those between."""
    alice, bob = await here.cluster.user("alice"), await here.cluster.user("bob")
    project = await here.cluster.project("p", owner=alice)
    grants_cache = GrantsCache(here.reader)
    async with here.publishing():
        await grants_cache.of(bob.uuid)
        assert grants_cache.take_change(bob.uuid) is None
        await here.cluster.share(project, bob)
        await grants_cache.renew([bob.uuid])
        await here.cluster.unshare(project, bob)
        await grants_cache.renew([bob.uuid])
        change = grants_cache.take_change(bob.uuid)
        assert change is not None
        assert change.narrows
        assert project.uuid in change.lost
        assert grants_cache.take_change(bob.uuid) is None


async def test_a_change_while_no_publisher_ran_is_told(here: PermissionWorld) -> None:
    """A publisher that starts makes every follower ask again."""
    alice, bob = await here.cluster.user("alice"), await here.cluster.user("bob")
    project = await here.cluster.project("p", owner=alice)
    await here.cluster.share(project, bob)
    follower = Follower(here, bob)
    async with background(follower.follow()):
        async with here.publishing():
            await follower.grants_cache.of(bob.uuid)
            await here.watch()
        await here.cluster.unshare(project, bob)
        async with here.publishing():
            await until(lambda: follower.of(bob), "the change is told")

    assert project.uuid in follower.of(bob)[0].lost


async def test_a_standby_takes_over_and_tells(here: PermissionWorld) -> None:
    """The one that led is gone; the other knows what readers hold, and tells what differs."""
    cluster = here.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    project = await cluster.project("p", owner=alice)
    await cluster.share(project, bob)
    spare = await cluster.token(bob)
    async with contextlib.AsyncExitStack() as second:
        async with here.publishing(FAST):
            await second.enter_async_context(here.publishing(FAST, leads=False))
            await here.watch(alice, bob)
            await here.ask(spare)
            starts = here.starts
        here.forget()
        await cluster.unshare(project, bob)
        await cluster.logout(spare)
        await until(lambda: here.starts > starts, "the standby takes over")
        await until(lambda: here.gone, "the token is told gone")
        told = await here.told(bob)

    assert told == uuids([bob])
    assert [gone.token_uuid for gone in here.gone] == [spare.token_uuid]


async def test_replicas_answer_with_comparable_generations(here: PermissionWorld) -> None:
    """Whoever answers, a later answer has a higher number and the same version if nothing moved."""
    alice = await here.cluster.user("alice")
    async with here.publishing(), here.publishing(leads=False):
        await here.watch(alice)
        here.forget()
        numbers = []
        for _ in range(20):
            await here.grants_cache.renew([alice.uuid])
            held = here.grants_cache.held(alice.uuid)
            assert held is not None
            numbers.append(held.generation)
        await here.settled()

    assert numbers == sorted(numbers)
    assert {change.user_uuid for change in here.changed} == {here.canary.uuid}


async def test_the_grants_cache_outlives_the_leaders_database_session(
    here: PermissionWorld,
) -> None:
    """PostgreSQL ends the session that holds the lock: it is taken again, and watching goes on."""
    alice, bob = await here.cluster.user("alice"), await here.cluster.user("bob")
    project = await here.cluster.project("p", owner=alice)
    await here.cluster.share(project, bob)
    async with here.publishing(SLOW):
        await here.watch(alice, bob)
        starts = here.starts
        connection = await asyncpg.connect(here.database.dsn)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND usename = 'arvados_nats'"
        )
        await connection.close()
        await here.cluster.unshare(project, bob)
        await until(lambda: here.starts > starts, "the lock is taken again")
        told = await here.told(bob)

    assert told == uuids([bob])


async def test_dead_tokens_reach_their_follower(here: PermissionWorld) -> None:
    """By the notice, or by asking when it was lost; tokens that are no rows are never told."""
    alice = await here.cluster.user("alice")
    first, second, kept = [await here.cluster.token(alice) for _ in range(3)]
    mine: dict[str, Identity | None]
    mine = dict.fromkeys(str(actor.token_uuid) for actor in (first, second, kept))
    mine[here.cluster.config.root_token_uuid] = None
    mine[here.cluster.config.anonymous_token_uuid] = None
    gone: list[tuple[str, str]] = []

    async def ended(token_uuid: str, reason: str) -> None:
        gone.append((token_uuid, reason))
        mine.pop(token_uuid, None)

    async with background(tokens_watch.follow(here.reader, here.own, lambda: mine, ended)):
        async with here.publishing(FAST):
            await here.cluster.logout(first)
            await until(lambda: gone, "the notice arrives")
        await here.cluster.logout(second)
        async with here.publishing(FAST):
            await until(lambda: len(dict(gone)) == 2, "the lost one is asked for")
            live = await tokens_watch.live(here.reader, [str(kept.token_uuid)])

    assert {uuid for uuid, _ in gone} == {first.token_uuid, second.token_uuid}
    assert live.keys() == {kept.token_uuid}


async def test_a_token_is_asked_about_soon_after_it_came_into_use(here: PermissionWorld) -> None:
    """It died before the question and no notice was told of it: the answer ends it."""
    alice = await here.cluster.user("alice")
    mine: dict[str, Identity | None] = {}
    gone: list[str] = []

    async def ended(token_uuid: str, _: str) -> None:
        gone.append(token_uuid)
        mine.pop(token_uuid, None)

    async with (
        here.publishing(SLOW),
        background(tokens_watch.follow(here.reader, here.own, lambda: mine, ended)),
    ):
        brief, kept = [await here.cluster.token(alice) for _ in range(2)]
        await here.watch(alice)
        await here.cluster.logout(brief)
        mine |= {str(brief.token_uuid): None, str(kept.token_uuid): None}
        await until(lambda: gone, "it is asked about")

    assert set(gone) == {brief.token_uuid}, "by the answer, and by a look"
    assert mine.keys() == {kept.token_uuid}


@pytest.mark.parametrize("used", ["as it is", "by another user", "with other scopes"])
async def test_a_token_that_is_not_what_it_was_let_in_as_is_asked_about(
    here: PermissionWorld, used: str
) -> None:
    """What changed before the publisher looked for the first time, no notice tells; nor does it
    say for sure that a change was one, so Arvados is asked."""
    alice, bob = await here.cluster.user("alice"), await here.cluster.user("bob")
    token, dead = await here.cluster.token(alice), await here.cluster.token(alice)
    await here.cluster.logout(dead)
    uuid = str(token.token_uuid)
    identity = {
        "as it is": Identity(uuid, alice.uuid),
        "by another user": Identity(uuid, bob.uuid),
        "with other scopes": Identity(uuid, alice.uuid, scopes=("GET /",)),
    }[used]
    told: list[tuple[str, str]] = []

    async def ended(token_uuid: str, reason: str) -> None:
        told.append((token_uuid, reason))

    using = {uuid: identity, str(dead.token_uuid): None}
    async with (
        here.publishing(SLOW),
        background(tokens_watch.follow(here.reader, here.own, lambda: using, ended)),
    ):
        await until(lambda: len(told) > 1, "all is told, or asked about twice")

    expected = {(str(dead.token_uuid), "expired")}
    assert set(told) == expected | (set() if used == "as it is" else {(uuid, "stale")})
