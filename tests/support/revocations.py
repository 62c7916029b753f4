# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The Revocations table of docs/facts/arvados.md 1 as scenes: how access is given, and how it is
taken.

Each scene makes an object readable for `reader`, and `take` takes it away. `within` is the bound
in seconds from the commit (or the moment) to the last delivery: logged changes act at once, what
leaves no row is found by a timer, the sweep or the round.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record

LOGGED = 2.0
"""Generous for a noisy machine; the benchmark says what is usual."""
SWEEP = 10.0


@dataclass(frozen=True, slots=True)
class Given:
    """What the reader can read now, where new objects in it are made, and how to take it away.

    `share` is where access comes in, unless that is the project itself.
    """

    owner: Actor
    project: Record
    take: Callable[[], Awaitable[object]]
    ends_token: bool = False
    share: str = ""
    cuts: bool = True
    """Whether the reader's own access was taken, so that a native connection is cut."""
    hides: tuple[str, ...] = ("collection", "request")
    """What of the project's contents can no longer be read: an event about a collection in the
    trash is still shown, as arvados-ws shows it."""


Scene = Callable[[Cluster, Actor], Awaitable[Given]]


def token_of(actor: Actor) -> str:
    """The uuid of the token that an actor logs in with."""
    assert actor.token_uuid is not None
    return actor.token_uuid


async def _owner_and_project(cluster: Cluster) -> tuple[Actor, Record]:
    owner = await cluster.user("owner")
    return owner, await cluster.project("shared", owner=owner)


async def link_deleted(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    await cluster.share(project, reader)
    return Given(owner, project, lambda: cluster.unshare(project, reader))


async def left_a_role(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    role = await cluster.role("role", reader)
    await cluster.share(project, role)
    return Given(owner, project, lambda: cluster.unshare(role, reader))


async def project_moved_away(cluster: Cluster, reader: Actor) -> Given:
    owner, parent = await _owner_and_project(cluster)
    project = await cluster.project("inner", owner=parent, by=owner)
    await cluster.share(parent, reader)
    take = partial(cluster.move, project, owner, by=owner)
    return Given(owner, project, take, share=parent.uuid, cuts=False)


async def parent_moved_away(cluster: Cluster, reader: Actor) -> Given:
    owner, top = await _owner_and_project(cluster)
    middle = await cluster.project("middle", owner=top, by=owner)
    project = await cluster.project("inner", owner=middle, by=owner)
    await cluster.share(top, reader)
    take = partial(cluster.move, middle, owner, by=owner)
    return Given(owner, project, take, share=top.uuid, cuts=False)


async def redundant_links_deleted(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    await cluster.share(project, reader)
    await cluster.share(project, reader, "can_write")
    return Given(owner, project, lambda: cluster.unshare(project, reader))


async def token_deleted(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    await cluster.share(project, reader)

    async def take() -> None:
        await cluster.delete(token_of(reader), cluster.root)

    return Given(owner, project, take, ends_token=True)


async def user_deactivated(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    await cluster.share(project, reader)
    return Given(owner, project, lambda: cluster.deactivate(reader), ends_token=True)


async def logged_out(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    await cluster.share(project, reader)
    return Given(owner, project, lambda: cluster.logout(reader), ends_token=True)


async def token_set_to_expire(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    await cluster.share(project, reader)
    past = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=1)

    async def take() -> None:
        await cluster.update(token_of(reader), {"expires_at": past}, cluster.root)

    return Given(owner, project, take, ends_token=True)


async def project_trashed(cluster: Cluster, reader: Actor) -> Given:
    """Requests in it are hidden; collections stay readable."""
    owner, project = await _owner_and_project(cluster)
    await cluster.share(project, reader)
    take = partial(cluster.trash, project, owner)
    return Given(owner, project, take, hides=("request",), cuts=False)


async def trash_time_passed(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    await cluster.share(project, reader)

    async def take() -> None:
        soon = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=1)
        await cluster.expire(project, soon, by=owner)

    return Given(owner, project, take, hides=("request",), cuts=False)


async def admin_demoted(cluster: Cluster, reader: Actor) -> Given:
    owner, project = await _owner_and_project(cluster)
    await cluster.update(reader.uuid, {"is_admin": True}, cluster.root)
    take = partial(cluster.update, reader.uuid, {"is_admin": False}, cluster.root)
    return Given(owner, project, take, share=owner.uuid)


SCENES: dict[str, tuple[Scene, float]] = {
    scene.__name__: (scene, within)
    for scene, within in (
        (link_deleted, LOGGED),
        (left_a_role, LOGGED),
        (project_moved_away, LOGGED),
        (parent_moved_away, LOGGED),
        (redundant_links_deleted, LOGGED),
        (token_deleted, LOGGED),
        (user_deactivated, LOGGED),
        (token_set_to_expire, LOGGED),
        (project_trashed, LOGGED),
        (trash_time_passed, LOGGED + 1),
        (admin_demoted, LOGGED),
        (logged_out, SWEEP),
    )
}
