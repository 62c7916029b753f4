# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the pretend cluster refuses, with which status and words.

Statuses and texts are those of a real server where golden/api.json has them; the rest is facts/
arvados.md 9. A refused write leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.model.refusal import Refusal


@dataclass(frozen=True)
class Scene:
    """Alice owns a project with a collection and a request; Bob reads it, Carla knows nothing."""

    cluster: Cluster
    alice: Actor
    bob: Actor
    carla: Actor
    admin: Actor
    project: Record
    inner: Record
    data: Record
    trashed: Record
    request: Record
    container: Record

    async def change(self, what: Record | Actor, actor: Actor, **given: Any) -> None:
        """PUT by the actor."""
        await self.cluster.update(what, given, actor)

    async def make(self, kind: str, actor: Actor, **given: Any) -> None:
        """POST by the actor."""
        await self.cluster.create(kind, given, actor)

    async def link(self, actor: Actor, tail: Record | Actor, head: Record, name: str) -> None:
        """POST of a permission link by the actor."""
        ends = {"tail_uuid": tail.uuid, "head_uuid": head.uuid}
        await self.make("links", actor, link_class="permission", name=name, **ends)


@pytest.fixture
async def scene(cluster: Cluster) -> Scene:
    """Everything that the table below refuses something of."""
    alice, bob, carla = [await cluster.user(name) for name in ("alice", "bob", "carla")]
    project = await cluster.project("reef", owner=alice)
    trashed = await cluster.project("trashed", owner=alice)
    await cluster.trash(trashed, alice)
    await cluster.share(project, bob)
    request = await cluster.container_request("run", owner=project, by=alice)
    return Scene(
        cluster,
        alice,
        bob,
        carla,
        await cluster.user("admin", admin=True),
        project,
        await cluster.project("inner", owner=project, by=alice),
        await cluster.collection("data", owner=project, by=alice),
        trashed,
        request,
        await cluster.container_of(request),
    )


Refused = Callable[[Scene], Awaitable[object]]
DENIED = "#<ArvadosModel::PermissionDeniedError"
CASES: list[tuple[str, Refused, int, str]] = [
    ("what one cannot see is not there",
     lambda s: s.change(s.project, s.carla, name="x"), 404, "Path not found"),
    ("a reader does not write",
     lambda s: s.change(s.project, s.bob, name="x"), 403, "is not writable by"),
    ("a reader does not write into a project",
     lambda s: s.make("collections", s.bob, name="x", owner_uuid=s.project.uuid),
     403, "without write permission on new owner"),
    ("a reader does not trash",
     lambda s: s.cluster.delete(s.data, s.bob), 403, "is not writable by"),
    ("a reader does not share",
     lambda s: s.link(s.bob, s.carla, s.project, "can_read"), 403, DENIED),
    ("what one cannot see is no owner",
     lambda s: s.make("groups", s.carla, name="x", group_class="project",
                      owner_uuid=s.project.uuid), 422, "Owner uuid '"),
    ("nothing is moved into a trashed project",
     lambda s: s.change(s.data, s.alice, owner_uuid=s.trashed.uuid), 422, "not found"),
    ("a project is not moved into itself",
     lambda s: s.change(s.project, s.alice, owner_uuid=s.inner.uuid), 422, "ownership cycle"),
    ("names are unique in a project",
     lambda s: s.make("collections", s.alice, name="data", owner_uuid=s.project.uuid),
     422, "index_collections_on_owner_uuid_and_name"),
    ("a name has no slash",
     lambda s: s.change(s.data, s.alice, name="a/b"), 422, "Name cannot contain a '/'"),
    ("a group has a class",
     lambda s: s.make("groups", s.alice, name="x"), 422, "Group class value must be one of"),
    ("the class of a group stays",
     lambda s: s.change(s.inner, s.alice, group_class="role"), 422, "cannot be modified after"),
    ("a filter group has filters",
     lambda s: s.make("groups", s.alice, name="x", group_class="filter"),
     422, "filters property missing"),
    ("a project gives no permission",
     lambda s: s.link(s.alice, s.project, s.data, "can_read"), 422, "must be a user or role"),
    ("a permission has a level",
     lambda s: s.link(s.alice, s.bob, s.data, "can_fly"), 422, "Name is invalid permission"),
    ("a frozen project is somebody's own doing",
     lambda s: s.change(s.inner, s.alice, frozen_by_uuid=s.bob.uuid),
     422, "can only be set to the current user's UUID"),
    ("what runs is not frozen",
     lambda s: s.change(s.project, s.alice, frozen_by_uuid=s.alice.uuid),
     422, "cannot freeze project containing container request"),
    ("a hash fits its manifest",
     lambda s: s.change(s.data, s.alice, portable_data_hash="0" * 32 + "+1"),
     422, "does not match computed hash"),
    ("only what is trashed is untrashed",
     lambda s: s.cluster.untrash(s.data, s.alice), 422, "Item is not trashed"),
    ("a committed command stays",
     lambda s: s.change(s.request, s.alice, command=["other"]), 422, "Command cannot be modified"),
    ("a priority has a limit",
     lambda s: s.change(s.request, s.alice, priority=1001), 422, "less than or equal to 1000"),
    ("a user does not say when it is Final",
     lambda s: s.change(s.request, s.alice, output_uuid=s.data.uuid),
     422, "Output uuid cannot be modified"),
    ("an unknown image is not run",
     lambda s: s.cluster.container_request(owner=s.alice, container_image="0" * 32 + "+1"),
     422, "docker image"),
    ("users do not lock containers",
     lambda s: s.cluster.lock(s.container, s.alice), 403, DENIED),
    ("users do not change containers",
     lambda s: s.change(s.container, s.alice, state="Running"), 403, DENIED),
    ("what is not locked is not unlocked",
     lambda s: s.cluster.unlock(s.container, s.admin), 422, "cannot unlock when Queued"),
    ("a queued container does not complete",
     lambda s: s.change(s.container, s.admin, state="Complete"), 422, "cannot change from Queued"),
    ("users do not make users",
     lambda s: s.make("users", s.alice, email="x@example.com"), 403, DENIED),
    ("nobody makes himself admin",
     lambda s: s.change(s.alice, s.alice, is_admin=True), 403, DENIED),
    ("who is set up is not made inactive by hand",
     lambda s: s.change(s.alice, s.admin, is_active=False), 422, "cannot be set to false directly"),
    ("an unknown attribute",
     lambda s: s.change(s.data, s.alice, nonsense=1), 422, "unknown attribute 'nonsense'"),
    ("a sweep is for admins",
     lambda s: s.cluster.trash_sweep(s.alice), 403, "Forbidden"),
    ("setting up is for admins",
     lambda s: s.cluster.setup_user(s.bob, s.alice), 403, "Forbidden"),
    ("nobody is merged into himself",
     lambda s: s.cluster.merge_users(s.bob, s.bob, s.admin, owner=s.bob),
     422, "cannot merge user to self"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("refused", "status", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
async def test_refused(scene: Scene, refused: Refused, status: int, said: str) -> None:
    """Status, words, and no log row."""
    count = "SELECT count(*) FROM logs"
    before = await scene.cluster.pool.fetchval(count)
    with pytest.raises(Refusal) as refusal:
        await refused(scene)

    assert (refusal.value.status, said in "; ".join(refusal.value.messages)) == (status, True), (
        refusal.value.messages
    )
    assert await scene.cluster.pool.fetchval(count) == before


async def test_only_admins_change_log_rows(cluster: Cluster) -> None:
    """Their change is told again, with the old id."""
    alice, admin = await cluster.user("alice"), await cluster.user("admin", admin=True)
    row = await cluster.log(alice, event_type="note")

    with pytest.raises(Refusal) as refusal:
        await cluster.update(row, {"summary": "x"}, alice)
    assert refusal.value.status == 403
    changed = await cluster.update(row, {"summary": "x"}, admin)
    assert (changed["id"], changed["summary"]) == (row["id"], "x")


async def test_an_inactive_user_only_reads(cluster: Cluster) -> None:
    """And posts log rows."""
    ghost = await cluster.user("ghost", active=False)

    with pytest.raises(Refusal) as refusal:
        await cluster.project("x", owner=ghost)
    assert refusal.value.status == 403
    assert await cluster.log(ghost, event_type="note")


async def test_an_uninvited_user_does_not_activate_himself(cluster: Cluster) -> None:
    """An invited one does."""
    stranger = await cluster.user("stranger", active=False, set_up=False)
    invited = await cluster.user("invited", active=False)

    with pytest.raises(Refusal, match="without being invited"):
        await cluster.activate_user(stranger, stranger)
    assert (await cluster.activate_user(invited, invited))["is_active"]


async def test_taken_out_of_all_users_one_can_be_made_inactive(cluster: Cluster) -> None:
    """Their other links and their token stay (docs/facts/arvados.md 9)."""
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    project = await cluster.project("reef", owner=alice)
    link = await cluster.share(project, bob)
    await cluster.unshare(cluster.config.all_users, bob)

    await cluster.update(bob, {"is_active": False}, cluster.root)

    assert await cluster.reload(link)
    assert not (await cluster.authenticate(bob.token)).is_active


async def test_a_merge_without_redirect_ends_the_tokens(cluster: Cluster) -> None:
    """One delete row per token, nothing else."""
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    last = await cluster.pool.fetchval("SELECT max(id) FROM logs")

    await cluster.merge_users(bob, alice, cluster.root, owner=alice)

    rows = await cluster.pool.fetch("SELECT event_type, object_uuid FROM logs WHERE id > $1", last)
    assert [tuple(row) for row in rows] == [("delete", bob.token_uuid)]


async def test_another_dispatcher_does_not_report_progress(cluster: Cluster) -> None:
    """But may cancel (golden/api.json, container.progress.otherdispatcher)."""
    request = await cluster.container_request(owner=await cluster.user("alice"))
    container = await cluster.run(request)
    other = await cluster.user("dispatcher", admin=True)

    with pytest.raises(Refusal, match="Progress cannot be modified in state 'Running'"):
        await cluster.update(container, {"progress": 0.5}, other)
    assert (await cluster.update(container, {"state": "Cancelled"}, other))["state"] == "Cancelled"


async def test_a_name_that_is_taken_can_be_made_unique(cluster: Cluster) -> None:
    """With a part of the uuid, as Arvados does."""
    alice = await cluster.user("alice")
    await cluster.project("reef", owner=alice)
    given = {"name": "reef", "group_class": "project"}
    second = await cluster.create("groups", given, alice, unique_name=True)

    assert second["name"] == f"reef ({second.uuid[-15:]})"
