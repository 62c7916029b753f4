# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who is told what: the rows of docs/facts/arvados.md 1, Revocations, on real PostgreSQL
and NATS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from arvados_nats.permission_client import tokens_watch
from arvados_nats.permissions.grants import DIRECT, OWNED
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.records import Record
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import PostgresServer
from tests.support.waiting import until
from tests.support.worlds.permissions import FAST, PermissionWorld, event_of, uuids, world


@dataclass
class Scene:
    """Alice owns a project tree; Bob reads it alone, Carol through a role, Dan not at all."""

    cluster: Cluster
    alice: Actor
    bob: Actor
    carol: Actor
    dan: Actor
    boss: Actor
    project: Record
    inner: Record
    collection: Record
    role: Record

    @property
    def everybody(self) -> list[Actor]:
        return [self.alice, self.bob, self.carol, self.dan, self.boss]


async def scene(cluster: Cluster) -> Scene:
    alice, bob, carol, dan, boss = [
        await cluster.user(name) for name in ("alice", "bob", "carol", "dan", "boss")
    ]
    project = await cluster.project("shared", owner=alice)
    inner = await cluster.project("inner", owner=project, by=alice)
    collection = await cluster.collection("apart", owner=alice)
    role = await cluster.role("readers", carol)
    await cluster.share(project, bob)
    await cluster.share(project, role)
    await cluster.share(collection, dan)
    await cluster.share(alice, boss, "can_manage")
    return Scene(cluster, alice, bob, carol, dan, boss, project, inner, collection, role)


Act = Callable[[Scene], Awaitable[object]]


async def unshare_from_user(s: Scene) -> None:
    await s.cluster.unshare(s.project, s.bob)


async def unshare_from_role(s: Scene) -> None:
    await s.cluster.unshare(s.project, s.role)


async def leave_role(s: Scene) -> None:
    await s.cluster.unshare(s.role, s.carol)


async def raise_level(s: Scene) -> None:
    await s.cluster.share(s.project, s.bob, "can_manage")


async def share_more(s: Scene) -> None:
    await s.cluster.share(s.project, s.dan)


async def move_object(s: Scene) -> None:
    await s.cluster.move(s.collection, s.project)


async def move_project(s: Scene) -> None:
    await s.cluster.move(s.inner, s.alice)


async def trash_project(s: Scene) -> None:
    await s.cluster.trash(s.project, s.alice)


async def freeze_project(s: Scene) -> None:
    await s.cluster.update(s.project, {"description": "final"}, s.alice)
    await s.cluster.update(s.project, {"frozen_by_uuid": s.alice.uuid}, s.alice)


async def unshare_directly(s: Scene) -> None:
    await s.cluster.unshare(s.collection, s.dan)


async def deactivate(s: Scene) -> None:
    await s.cluster.deactivate(s.bob)


async def make_admin(s: Scene) -> None:
    await s.cluster.update(s.dan, {"is_admin": True}, s.cluster.root)


async def stop_managing(s: Scene) -> None:
    await s.cluster.unshare(s.alice, s.boss)


async def trash_role(s: Scene) -> None:
    await s.cluster.trash(s.role, s.cluster.root)


async def new_inner_project(s: Scene) -> None:
    await s.cluster.project("new", owner=s.inner, by=s.alice)


async def sweep_the_trash(s: Scene) -> None:
    await s.cluster.trash(s.inner, s.alice)
    async with s.cluster.unit(s.cluster.root) as unit:
        await unit.connection.execute(
            "UPDATE groups SET delete_at = now() - interval '1 day' WHERE uuid = $1", s.inner.uuid
        )
    await s.cluster.sweep()


async def recompute_late(s: Scene) -> None:
    """A stale row that goes away when somebody is granted something (permission-rule.md)."""
    async with s.cluster.unit(s.cluster.root) as unit:
        await unit.connection.execute(
            "DELETE FROM materialized_permissions WHERE user_uuid = $1 AND target_uuid = $2",
            s.boss.uuid,
            s.alice.uuid,
        )
    await s.cluster.create("link", _tag(s.boss), s.boss)
    await s.cluster.share(await s.cluster.project("other", owner=s.dan), s.boss)


def _tag(user: Actor) -> dict[str, str]:
    return {"link_class": "tag", "name": "x", "head_uuid": user.uuid}


ROWS = [
    # what happens, who is told
    (unshare_from_user, ("bob",)),
    (unshare_from_role, ("carol",)),
    (leave_role, ("carol",)),
    (raise_level, ("bob",)),
    (share_more, ("dan",)),
    (move_object, ()),
    (move_project, ()),
    (trash_project, ()),
    (freeze_project, ()),
    (unshare_directly, ("dan",)),
    (deactivate, ("bob",)),
    (make_admin, ("dan",)),
    (stop_managing, ("boss",)),
    (trash_role, ("carol",)),
    (new_inner_project, ()),
    (sweep_the_trash, ()),
    (recompute_late, ("boss",)),
]


@pytest.mark.parametrize(("act", "names"), ROWS, ids=[act.__name__ for act, _ in ROWS])
async def test_exactly_the_affected_users_are_told(
    here: PermissionWorld, act: Act, names: tuple[str, ...]
) -> None:
    """An event makes their grants be read again; whoever is not concerned is left alone."""
    made = await scene(here.cluster)
    async with here.publishing():
        before = await here.watch(*made.everybody)
        here.forget()
        await act(made)
        affected = [getattr(made, name) for name in names]
        told = await here.told(*affected)
        after = {user.uuid: await here.grants_cache.of(user.uuid) for user in made.everybody}

    assert told == uuids(affected)
    for change in here.changed:
        if change.user_uuid in told:
            assert change.generation > before[change.user_uuid].generation
            assert after[change.user_uuid].generation >= change.generation


async def test_what_was_lost_is_named(here: PermissionWorld) -> None:
    """The message lists the uuids, and the new grants lack them."""
    made = await scene(here.cluster)
    async with here.publishing():
        before = (await here.watch(made.bob))[made.bob.uuid]
        await here.cluster.unshare(made.project, made.bob)
        await here.told(made.bob)
        after = await here.grants_cache.of(made.bob.uuid)

    assert before.targets[made.project.uuid] & (DIRECT | OWNED) == DIRECT | OWNED
    assert made.project.uuid not in after.targets
    change = next(c for c in here.changed if c.user_uuid == made.bob.uuid)
    assert change.lost == (made.project.uuid,)
    assert change.narrows
    assert change.gained == ()


async def test_a_revocation_is_told_within_moments(here: PermissionWorld) -> None:
    """From the commit of the link's deletion to the message, without a look at all."""
    made = await scene(here.cluster)
    async with here.publishing():
        await here.watch(*made.everybody)
        await here.cluster.unshare(made.project, made.bob)
        await until(lambda: made.bob.uuid in {c.user_uuid for c in here.changed}, "told")


async def test_what_leaves_no_row_is_found_by_the_round(here: PermissionWorld) -> None:
    """Redundant links removed by raw SQL, as `delete_all` does: no row, no event at all."""
    made = await scene(here.cluster)
    async with here.publishing(FAST, with_events=False):
        await here.watch(*made.everybody)
        here.forget()
        connection = await asyncpg.connect(here.database.dsn)
        await connection.execute(
            "DELETE FROM materialized_permissions WHERE user_uuid = $1 AND target_uuid = $2",
            made.bob.uuid,
            made.project.uuid,
        )
        await connection.close()
        told = await here.told(made.bob)

    assert told == uuids([made.bob])


async def test_a_merge_without_rows_is_found(here: PermissionWorld) -> None:
    """User merge: bulk updates without rows; the one reads as the other from now on."""
    made = await scene(here.cluster)
    async with here.publishing(FAST):
        await here.watch(*made.everybody)
        here.forget()
        project = await here.cluster.project("of alice", owner=made.dan)
        await here.cluster.merge_users(
            made.alice, made.dan, here.cluster.root, owner=project, redirect=True
        )
        await here.told(made.alice)
        dan, alice = [await here.grants_cache.of(user.uuid) for user in (made.dan, made.alice)]

    assert alice.user_uuid == made.dan.uuid
    assert alice.targets == dan.targets


async def test_forged_rows_cost_a_look_and_tell_nothing(here: PermissionWorld) -> None:
    """Any user can post rows about any object; grants come from the tables alone."""
    made = await scene(here.cluster)
    async with here.publishing():
        before = await here.watch(*made.everybody)
        here.forget()
        for _ in range(20):
            await here.cluster.log(
                made.dan,
                object_uuid=made.project.uuid,
                event_type="update",
                properties={"new_attributes": {"owner_uuid": made.dan.uuid}},
            )
        link = await here.cluster.share(made.collection, made.dan)
        await here.cluster.log(
            made.dan,
            object_uuid=link.uuid,
            event_type="delete",
            properties={"old_attributes": {"tail_uuid": made.bob.uuid, "head_uuid": "x"}},
        )
        await here.cluster.log(made.dan, object_uuid=link.uuid, event_type="x", properties={})
        told = await here.told()
        after = {user.uuid: await here.grants_cache.of(user.uuid) for user in made.everybody}

    assert told == set()
    assert {u: g.targets for u, g in after.items()} == {
        user.uuid: before[user.uuid].targets for user in made.everybody
    }


async def test_one_change_is_one_line_of_the_log(
    here: PermissionWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """However many users it concerns: they are counted (V9)."""
    caplog.set_level("INFO")
    made = await scene(here.cluster)
    crowd = [made.bob, made.carol, made.dan, made.boss]
    role = await here.cluster.role("crowd", *crowd)
    async with here.publishing():
        await here.watch(*made.everybody)
        here.forget()
        caplog.clear()
        await here.cluster.share(made.inner, role)
        told = await here.told(*crowd)
    lines = [record for record in caplog.records if record.message == "grants changed"]
    counted = [vars(record)["users"] for record in lines]
    assert len(told) == len(crowd)
    assert len(counted) < len(crowd)
    assert sum(counted) >= len(told)


# --- tokens ---------------------------------------------------------------------------------------


async def test_dead_tokens_are_told(here: PermissionWorld) -> None:
    """Logout and expiry leave no row, deletion does; live tokens are not told."""
    cluster = here.cluster
    alice = await cluster.user("alice")
    soon = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=1.2)
    logged_out, deleted, kept = [await cluster.token(alice) for _ in range(3)]
    expiring = await cluster.token(alice, expires_at=soon)
    async with here.publishing(FAST):
        await here.use(logged_out, deleted, kept, expiring)
        await cluster.logout(logged_out)
        assert deleted.token_uuid
        await cluster.delete(deleted.token_uuid, cluster.root)
        await until(lambda: len(here.gone) >= 3, "three tokens are told gone")

    assert {(told.token_uuid, told.reason) for told in here.gone} == {
        (logged_out.token_uuid, "expired"),
        (deleted.token_uuid, "deleted"),
        (expiring.token_uuid, "expired"),
    }
    assert kept.token_uuid not in {told.token_uuid for told in here.gone}


async def test_a_token_ends_at_its_time_and_not_at_the_next_sweep(here: PermissionWorld) -> None:
    """The moment is known in advance; the sweep would come an hour later."""
    alice = await here.cluster.user("alice")
    at = datetime.now(UTC) + timedelta(seconds=1)
    token = await here.cluster.token(alice, expires_at=at.replace(tzinfo=None))
    async with here.publishing():
        await here.use(token)
        await until(lambda: here.gone, "the token is told gone")
        late = datetime.now(UTC) - at

    assert timedelta(0) < late < timedelta(minutes=1)


@pytest.mark.parametrize("release", ["3.0", "3.2"])
async def test_another_clusters_token_is_stale_before_it_is_gone(
    postgres_server: PostgresServer,
    fresh_nats: NatsServer,
    keys_folder: Path,
    release: str,
) -> None:
    """When Arvados has to ask there again is no end; that nobody asked for long is one (V4).

    Up to 3.0 that time stands in expires_at; a token of this cluster ends at it.
    """
    database = await postgres_server.clone(age=release)
    config = ClusterConfig(release=release)
    async with world(database, fresh_nats, keys_folder, config) as here:
        user = await here.cluster.user("abroad")
        async with here.publishing(replace(FAST, grace=1.5)):
            foreign = await here.cluster.foreign_token(user, lives=1.0)
            soon = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=1)
            own = await here.cluster.token(user, expires_at=soon)
            await here.use(foreign, own)
            await until(lambda: len(here.gone) >= 2, "the end and the staleness are told")
            assert {(told.token_uuid, told.reason) for told in here.gone} == {
                (own.token_uuid, "expired"),
                (foreign.token_uuid, "stale"),
            }
            assert await tokens_watch.live(here.reader, [str(foreign.token_uuid)])
            await until(lambda: len(here.gone) >= 3, "nobody asked, and it is told gone")
        assert (here.gone[-1].token_uuid, here.gone[-1].reason) == (foreign.token_uuid, "expired")
    await postgres_server.drop(database)


async def test_an_event_of_a_token_makes_the_sweep_look(here: PermissionWorld) -> None:
    """Token update or delete via the API is told at once."""
    alice = await here.cluster.user("alice")
    extra = await here.cluster.token(alice)
    narrowed = await here.cluster.token(alice)
    async with here.publishing():
        assert extra.token_uuid and narrowed.token_uuid
        await here.use(extra, narrowed)
        await here.cluster.delete(extra.token_uuid, alice)
        await here.cluster.update(narrowed.token_uuid, {"scopes": ["GET /"]}, alice)
        await until(lambda: len(here.gone) >= 2, "both are told")

    assert {(told.token_uuid, told.reason) for told in here.gone} == {
        (extra.token_uuid, "deleted"),
        (narrowed.token_uuid, "changed"),
    }


@pytest.mark.parametrize("asked", [True, False])
async def test_a_token_that_lived_between_two_looks_is_told_if_it_was_asked_about(
    here: PermissionWorld, asked: bool
) -> None:
    """No look saw it alive, and it left no trace; whoever let it in has asked about it since."""
    cluster = here.cluster
    alice = await cluster.user("alice")
    witness = await cluster.token(alice)
    async with here.publishing(with_events=False):
        await here.use(witness)
        brief = await cluster.token(alice)
        if asked:
            await here.ask(brief)
        await cluster.logout(brief)
        await cluster.logout(witness)
        await here.nats.publish(event_of(witness))
        await until(lambda: len(here.gone) > asked, "a look was taken, and all is told")

    told = {brief.token_uuid, witness.token_uuid} if asked else {witness.token_uuid}
    assert {gone.token_uuid for gone in here.gone} == told


async def test_a_token_that_became_stale_between_two_looks_is_told(here: PermissionWorld) -> None:
    """Who asked heard that it is fresh, and every look that saw it saw it stale."""
    cluster = here.cluster
    user = await cluster.user("abroad")
    witness = await cluster.token(user)
    async with here.publishing(with_events=False):
        foreign = await cluster.foreign_token(user, lives=3600)
        await here.use(witness)
        await here.ask(foreign)
        await cluster.pool.execute(
            "UPDATE api_client_authorizations SET refreshes_at = clock_timestamp() AT TIME ZONE"
            " 'UTC' WHERE uuid = $1",
            foreign.token_uuid,
        )
        await cluster.logout(witness)
        await here.nats.publish(event_of(witness))
        await until(lambda: len(here.gone) > 1, "a look was taken, and all is told")

    assert {(gone.token_uuid, gone.reason) for gone in here.gone} == {
        (witness.token_uuid, "expired"),
        (foreign.token_uuid, "stale"),
    }


async def test_whoever_leads_has_heard_what_another_replica_was_asked(
    here: PermissionWorld,
) -> None:
    """The replica that answered need not be the one that tells; all of them hear the question."""
    alice = await here.cluster.user("alice")
    brief: list[str] = []
    async with (
        here.publishing(FAST, with_events=False),
        here.publishing(FAST, leads=False, with_events=False),
    ):
        for _ in range(6):
            token = await here.cluster.token(alice)
            brief.append(str(token.token_uuid))
            await here.ask(token)
            await here.cluster.logout(token)
        await until(lambda: len(here.gone) >= len(brief), "all are told gone")

    assert {(gone.token_uuid, gone.reason) for gone in here.gone} == {
        (uuid, "expired") for uuid in brief
    }


async def test_a_containers_token_ends_with_it(here: PermissionWorld) -> None:
    """Container token end: told when the container is Complete, and not while it runs."""
    alice = await here.cluster.user("alice")
    request = await here.cluster.container_request("run", owner=alice)
    async with here.publishing():
        container = await here.cluster.run(request)
        locked = await here.cluster.reload(container)
        await here.use(locked["auth_uuid"])
        await here.watch(alice)
        assert here.gone == []
        await here.cluster.finish(request)
        await until(lambda: here.gone, "the token is told gone")

    assert {told.token_uuid for told in here.gone} == {locked["auth_uuid"]}


async def test_deactivating_a_user_ends_his_tokens(here: PermissionWorld) -> None:
    """unsetup deletes the tokens too."""
    made = await scene(here.cluster)
    async with here.publishing():
        await here.use(*made.everybody)
        await here.watch(*made.everybody)
        await here.cluster.deactivate(made.bob)
        await until(lambda: here.gone, "the token is told gone")

    assert [told.token_uuid for told in here.gone] == [made.bob.token_uuid]
