# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Patterns are handed out exactly where the rule says yes; differences name what they touch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arvados_nats.admin.permission_recording import WITH_TRASH, Recording, World
from arvados_nats.contract import subjects
from arvados_nats.permissions.grant_subjects import (
    Change,
    Subscriptions,
    compare,
    covered_branches,
    next_change,
    subscriptions,
)
from arvados_nats.permissions.grants import (
    DIRECT,
    MANAGES,
    OWNED,
    ClusterState,
    Grants,
    PermissionRow,
    fold,
    grouped,
    owners_beside,
    with_live_owner,
)
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import Decision, Identity, decide

NOW = 1_800_000_000.0
ME = "zzzzz-tpzed-000000000000me0"
SYSTEM = "zzzzz-tpzed-000000000000000"
PROJECT = "zzzzz-j7d0g-000000000000pro"
INNER = "zzzzz-j7d0g-000000000000inn"
COLLECTION = "zzzzz-4zz18-000000000000001"
REQUEST = "zzzzz-xvhdp-000000000000001"
CONTAINER = "zzzzz-dz642-000000000000001"
WORKFLOW = "zzzzz-7fd4e-000000000linked"
READS = DIRECT | OWNED
IDENTITY = Identity("zzzzz-gj3su-00000000000mine", ME)
LIMIT = 1_000


def patterns(grants: Grants, identity: Identity = IDENTITY, now: float = NOW) -> set[str]:
    found = subscriptions(identity, grants, now, LIMIT)
    assert not found.overflow
    return set(found.patterns)


def below(owner: str, *branches: str) -> set[str]:
    return {f"arvados.live.{owner}.*.{branch}.>" for branch in branches}


TRASHABLE = ("event.collection", "event.group")
UNTRASHABLE = ("event.container_request", "event.container", "event.workflow", "log")

PATTERNS = [
    # id, targets, owner_of, trashed, frozen, expected
    ("owner", {PROJECT: READS}, {}, {}, (), {f"arvados.live.{PROJECT}.>"}),
    ("home project", {ME: READS}, {}, {}, (), {f"arvados.live.{ME}.>"}),
    ("user readable, not traversed", {SYSTEM: DIRECT}, {}, {}, (), set()),
    (
        "project shared directly",
        {PROJECT: READS},
        {PROJECT: SYSTEM},
        {},
        (),
        {f"arvados.live.{PROJECT}.>", f"arvados.live.*.{PROJECT}.>"},
    ),
    (
        "object shared directly",
        {COLLECTION: DIRECT},
        {COLLECTION: PROJECT},
        {},
        (),
        {f"arvados.live.*.{COLLECTION}.>"},
    ),
    ("object of unknown owner", {COLLECTION: DIRECT}, {}, {}, (), set()),
    ("direct link to a container", {CONTAINER: DIRECT}, {CONTAINER: SYSTEM}, {}, (), set()),
    ("no well-formed uuid", {"a.>": READS}, {"a.>": SYSTEM}, {}, (), set()),
    ("trashed owner", {PROJECT: READS}, {}, {PROJECT: NOW}, (), below(PROJECT, *TRASHABLE)),
    (
        "owner to be trashed",
        {PROJECT: READS},
        {},
        {PROJECT: NOW + 1},
        (),
        {f"arvados.live.{PROJECT}.>"},
    ),
    ("frozen owner", {PROJECT: READS}, {}, {}, (PROJECT,), below(PROJECT, *UNTRASHABLE)),
    ("frozen and trashed owner", {PROJECT: READS}, {}, {PROJECT: NOW}, (PROJECT,), set()),
    ("request in the trash", {REQUEST: DIRECT}, {REQUEST: PROJECT}, {PROJECT: NOW}, (), set()),
    (
        "collection in the trash",
        {COLLECTION: DIRECT},
        {COLLECTION: PROJECT},
        {PROJECT: NOW},
        (),
        {f"arvados.live.*.{COLLECTION}.event.collection.>"},
    ),
    (
        "collection in a frozen project",
        {COLLECTION: DIRECT},
        {COLLECTION: PROJECT},
        {},
        (PROJECT,),
        {f"arvados.live.*.{COLLECTION}.event.workflow.>"},
    ),
    (
        "request in a frozen project",
        {REQUEST: DIRECT},
        {REQUEST: PROJECT},
        {},
        (PROJECT,),
        {f"arvados.live.*.{REQUEST}.>"},
    ),
]


@pytest.mark.parametrize(("name", "targets", "owner_of", "trashed", "frozen", "expected"), PATTERNS)
def test_grants_become_patterns(
    name: str,
    targets: dict[str, int],
    owner_of: dict[str, str],
    trashed: dict[str, float],
    frozen: tuple[str, ...],
    expected: set[str],
) -> None:
    """The table in the module's docstring, and what is left out of the live tree."""
    cluster = ClusterState(trashed, frozenset(frozen))

    assert patterns(Grants(ME, targets=targets, owner_of=owner_of, cluster=cluster)) == expected


def test_scopes_narrow_the_branches() -> None:
    """A token that may only GET collections hears of collections alone."""
    grants = Grants(ME, targets={PROJECT: READS, COLLECTION: DIRECT}, owner_of={COLLECTION: ME})
    scoped = msgspec.structs.replace(IDENTITY, scopes=("GET /arvados/v1/collections/",))

    assert patterns(grants, scoped) == below(PROJECT, "event.collection") | {
        f"arvados.live.*.{COLLECTION}.event.collection.>"
    }


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (("all",), 6),
        (("GET /",), 6),
        (("GET /arvados/v1/",), 6),
        (("GET /arvados/v1/containers/",), 1),
        (("GET /arvados/v1/containers/", "GET /arvados/v1/container_requests/"), 3),
        (("GET /arvados/v1/collections",), 0),
        (("POST /arvados/v1/",), 0),
        ((), 0),
    ],
)
def test_a_branch_needs_every_path_below_it(scopes: tuple[str, ...], expected: int) -> None:
    """A container's log needs both the request and the container (docs/facts/arvados.md 4)."""
    assert len(covered_branches(scopes)) == expected


def test_too_many_patterns_are_a_value_and_no_list() -> None:
    """Overflow is told with the number that would have been needed."""
    grants = Grants(ME, targets={f"zzzzz-j7d0g-{n:015d}": READS for n in range(11)})

    assert subscriptions(IDENTITY, grants, NOW, 10) == Subscriptions(overflow=True, needed=11)
    assert len(subscriptions(IDENTITY, grants, NOW, 11).patterns) == 11


def test_the_next_trash_time_is_known() -> None:
    """Whoever holds patterns can ask until when they are right."""
    trashed = {PROJECT: NOW - 5, INNER: NOW + 50, "zzzzz-j7d0g-000000000others": NOW + 5}
    grants = Grants(
        ME,
        targets={PROJECT: READS, COLLECTION: DIRECT},
        owner_of={COLLECTION: INNER},
        cluster=ClusterState(trashed),
    )

    assert next_change(grants, NOW) == NOW + 50
    assert next_change(grants, NOW + 50) is None
    assert next_change(msgspec.structs.replace(grants, is_admin=True), NOW) == NOW + 5


# --- patterns and the rule agree, whatever the cluster looks like ---------------------------------


@dataclass(frozen=True)
class Thing:
    """An object of the live tree: its facts, and the branches its messages appear on."""

    facts: ObjectFacts
    branches: tuple[str, ...]

    def subject(self, branch: str) -> str:
        owner, uuid = self.facts.owner_uuid, self.facts.uuid
        if branch == "log":
            return subjects.live_log(owner, uuid, CONTAINER, "stdout.txt")
        return subjects.live_event(
            owner, uuid, {"container": CONTAINER, "linked": WORKFLOW}.get(branch, uuid), "update"
        )

    def decide(self, grants: Grants, branch: str) -> Decision:
        if branch in ("container", "log"):
            shown_by = ((self.facts.uuid, self.facts.owner_uuid),)
            container = ObjectFacts("container", CONTAINER, SYSTEM, requests=shown_by)
            return decide(IDENTITY, grants, container, NOW, False)
        if branch == "linked":
            facts = self.facts
            workflow = ObjectFacts(
                "workflow",
                WORKFLOW,
                SYSTEM,
                collection_uuid=facts.uuid,
                collection_owner_uuid=facts.owner_uuid,
            )
            return decide(IDENTITY, grants, workflow, NOW, False)
        return decide(IDENTITY, grants, self.facts, NOW, True)


BRANCHES = {
    "collection": ("collection", "linked"),
    "group": ("group",),
    "workflow": ("workflow",),
    "container_request": ("container_request", "container", "log"),
}


TRASH_AT = st.none() | st.sampled_from([NOW - 1, NOW, NOW + 1])
USERS = (ME, SYSTEM, "zzzzz-tpzed-000000000other0")


@st.composite
def worlds(draw: st.DrawFn) -> list[Thing]:
    """A forest of projects, each after its owner, and things in them."""
    groups: list[str] = []
    things = []
    for n in range(draw(st.integers(1, 6))):
        uuid, owner = f"zzzzz-j7d0g-{n:015d}", draw(st.sampled_from([*USERS, *groups]))
        things.append(Thing(ObjectFacts("group", uuid, owner, is_role=False), ("group",)))
        groups.append(uuid)
    for n in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["collection", "workflow", "container_request"]))
        uuid = f"zzzzz-{kind_infix(kind)}-{n:015d}"
        owner = draw(st.sampled_from([*USERS, *groups]))
        own_trash = draw(TRASH_AT) if kind == "collection" else None
        unlinked = "" if kind == "workflow" else None
        facts = ObjectFacts(kind, uuid, owner, trash_at=own_trash, collection_uuid=unlinked)
        things.append(Thing(facts, BRANCHES[kind]))
    return things


@st.composite
def states(draw: st.DrawFn, things: list[Thing]) -> tuple[Grants, list[Thing]]:
    """What a reader of parts of the world is granted, and the things with projects in the trash.

    Rows are closed downwards as Arvados' table is: who reads a project has a row for each inside.
    """
    things = [with_trash(thing, draw(TRASH_AT)) for thing in things]
    shared = draw(st.sets(st.sampled_from([thing.facts.uuid for thing in things]), max_size=6))
    frozen = draw(st.sets(st.sampled_from([thing.facts.uuid for thing in things]), max_size=2))
    rows, readable = [PermissionRow(ME, ME, 3, True)], {ME}
    for facts in (thing.facts for thing in things):
        is_group = facts.kind == "group"
        if facts.uuid in shared or (is_group and facts.owner_uuid in readable):
            rows.append(PermissionRow(ME, facts.uuid, 1, is_group))
            readable.add(facts.uuid)
        if is_group and facts.owner_uuid in frozen:
            frozen.add(facts.uuid)
    targets = fold(ME, grouped(rows))
    owners = {thing.facts.uuid: thing.facts.owner_uuid for thing in things}
    live_owners = {uuid: owners[uuid] for uuid in with_live_owner(targets) if uuid in owners}
    grants = Grants(
        ME,
        targets=targets,
        owner_of=owners_beside(targets, live_owners),
        cluster=ClusterState(trash_below(things), frozenset(frozen)),
    )
    return grants, things


def with_trash(thing: Thing, trash_at: float | None) -> Thing:
    """A group's own trash time is part of the state; a collection's stands in its own record."""
    if thing.facts.kind != "group":
        return thing
    return Thing(msgspec.structs.replace(thing.facts, trash_at=trash_at), thing.branches)


def kind_infix(kind: str) -> str:
    return subjects.KIND_OF_NAME[kind].infix


def trash_below(things: list[Thing]) -> dict[str, float]:
    """`trashed_groups`: the earliest trash time of a group and of those above it."""
    trashed: dict[str, float] = {}
    for thing in things:
        facts = thing.facts
        times = [at for at in (facts.trash_at, trashed.get(facts.owner_uuid)) if at is not None]
        if facts.kind == "group" and times:
            trashed[facts.uuid] = min(times)
    return trashed


def allows(allowed: set[str], subject: str) -> bool:
    """Whether NATS would let a subscriber of these patterns receive the subject."""
    tokens = subject.split(".")
    for pattern in allowed:
        parts = pattern.split(".")
        assert parts[-1] == ">"
        head = parts[:-1]
        if len(tokens) > len(head) and all(
            part in ("*", token) for part, token in zip(head, tokens, strict=False)
        ):
            return True
    return False


@settings(max_examples=400, deadline=None)
@given(worlds().flatmap(states))
def test_patterns_let_through_what_the_rule_allows_and_no_more(
    state: tuple[Grants, list[Thing]],
) -> None:
    """Never looser; stricter only for collections and groups in frozen owners, where all stands."""
    grants, things = state
    allowed = patterns(grants)

    for thing in things:
        for branch in thing.branches:
            through = allows(allowed, thing.subject(branch))
            readable = thing.decide(grants, branch) is Decision.YES
            in_frozen = thing.facts.owner_uuid in grants.cluster.frozen
            if not (in_frozen and branch in ("collection", "group")):
                assert through == readable, (thing.subject(branch), sorted(allowed))
            assert readable or not through


@settings(max_examples=600, deadline=None)
@given(worlds().flatmap(lambda things: st.tuples(states(things), states(things))), st.booleans())
def test_a_difference_names_everything_that_it_touches(
    two: tuple[tuple[Grants, list[Thing]], tuple[Grants, list[Thing]]], include_trash: bool
) -> None:
    """An object whose answer turns is below, or is, something that the difference lists."""
    (old, things_before), (new, things_after) = two
    change = compare(old, new, NOW, NOW)

    for before, after in zip(things_before, things_after, strict=True):
        had = decide(IDENTITY, old, before.facts, NOW, include_trash)
        has = decide(IDENTITY, new, after.facts, NOW, include_trash)
        touched = {after.facts.uuid, after.facts.owner_uuid}
        if had is Decision.YES and has is Decision.NO:
            assert touched & set(change.lost)
            assert change.narrows
        if had is Decision.NO and has is Decision.YES:
            assert touched & set(change.gained)


# --- differences ----------------------------------------------------------------------------------

HOLDER = Grants(ME, False, True, {PROJECT: READS, INNER: READS}, generation=1)

CHANGES = [
    # id, new grants, lost, gained
    ("nothing", HOLDER, (), ()),
    ("a target gone", Grants(ME, False, True, {PROJECT: READS}), (INNER,), ()),
    (
        "a target more",
        Grants(ME, False, True, {PROJECT: READS, INNER: READS, COLLECTION: DIRECT}),
        (),
        (COLLECTION,),
    ),
    (
        "traverse_owned lost",
        Grants(ME, False, True, {PROJECT: DIRECT, INNER: READS}),
        (PROJECT,),
        (),
    ),
    (
        "manage gained",
        Grants(ME, False, True, {PROJECT: READS | MANAGES, INNER: READS}),
        (),
        (PROJECT,),
    ),
    (
        "trashed",
        msgspec.structs.replace(HOLDER, cluster=ClusterState({INNER: NOW})),
        (INNER,),
        (),
    ),
    (
        "to be trashed later",
        msgspec.structs.replace(HOLDER, cluster=ClusterState({INNER: NOW + 1})),
        (),
        (),
    ),
    (
        "somebody else's project trashed",
        msgspec.structs.replace(HOLDER, cluster=ClusterState({"zzzzz-j7d0g-0": NOW})),
        (),
        (),
    ),
    (
        "frozen",
        msgspec.structs.replace(HOLDER, cluster=ClusterState(frozen=frozenset({PROJECT}))),
        (PROJECT,),
        (),
    ),
]


@pytest.mark.parametrize(("name", "new", "lost", "gained"), CHANGES)
def test_changes_are_told_by_uuid(
    name: str, new: Grants, lost: tuple[str, ...], gained: tuple[str, ...]
) -> None:
    """Lost and gained name owners and objects; the way back is the mirror image."""
    there, back = compare(HOLDER, new, NOW, NOW), compare(new, HOLDER, NOW, NOW)

    assert (there.lost, there.gained) == (lost, gained), name
    assert (back.lost, back.gained) == (gained, lost), name
    assert bool(there) == bool(lost or gained)
    assert there.narrows == bool(lost)


def test_a_trash_time_that_passes_is_a_loss_without_any_row() -> None:
    """The same grants, looked at later (docs/facts/arvados.md 1: trash_at passes, no row)."""
    grants = msgspec.structs.replace(HOLDER, cluster=ClusterState({INNER: NOW}))

    assert compare(grants, grants, NOW - 1, NOW).lost == (INNER,)
    assert not compare(grants, grants, NOW, NOW + 1)


def test_what_makes_or_unmakes_an_admin_is_told() -> None:
    """is_admin and is_active change what is readable without any target."""
    admin = msgspec.structs.replace(HOLDER, is_admin=True)
    idle = msgspec.structs.replace(HOLDER, is_active=False)

    assert compare(HOLDER, admin, NOW, NOW) == Change(ME, 1, gained_admin=True)
    assert compare(admin, HOLDER, NOW, NOW).narrows
    assert compare(HOLDER, idle, NOW, NOW).narrows
    assert compare(HOLDER, idle, NOW, NOW)


def test_an_owner_that_is_frozen_as_it_becomes_readable_is_noticed() -> None:
    """A group in the trash is hidden then, though it was frozen itself before and after."""
    before = Grants(
        ME,
        targets={INNER: READS},
        owner_of={INNER: PROJECT},
        cluster=ClusterState(frozen=frozenset({INNER})),
    )
    after = Grants(
        ME,
        targets={INNER: READS, PROJECT: READS},
        cluster=ClusterState(frozen=frozenset({INNER, PROJECT})),
    )

    assert compare(before, after, NOW, NOW).lost == (INNER,)


def test_an_admin_loses_what_is_trashed_anywhere() -> None:
    """Admins have no row for it, and do not see it any more all the same."""
    before = Grants(ME, True, True)
    after = msgspec.structs.replace(before, cluster=ClusterState({INNER: NOW}))

    assert compare(before, after, NOW, NOW).lost == (INNER,)


def test_groups_below_owners_are_rows_in_a_recorded_cluster(golden: Path) -> None:
    """What the owner patterns rely on holds in every step of a real Arvados' table."""
    recording = msgspec.json.decode((golden / "permissions.json").read_bytes(), type=Recording)
    stale = {(cell["step"], cell["label"]) for cell in recording.stale_cells}
    world, seen = World(recording), 0

    for step in recording.steps:
        world.advance(step)
        groups = [facts for _, facts in world.asked_about(WITH_TRASH) if facts.kind == "group"]
        for label in {*step["readable"]} - {name for n, name in stale if n == step["n"]}:
            _, grants = world.reader(label)
            for group in groups:
                if grants.targets.get(group.owner_uuid, 0) & OWNED:
                    assert grants.targets.get(group.uuid, 0) & DIRECT
                    seen += 1
    assert seen > 1_000
