# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Share points say all that the whole table says, and patterns are handed out where the rule says
yes; differences name what they touch."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arvados_nats.contract import subjects
from arvados_nats.contract.events import Event
from arvados_nats.contract.places import Place
from arvados_nats.permissions.grant_subjects import (
    Change,
    Subscriptions,
    compare,
    covered_branches,
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
)
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import Decision, Identity, decide
from publishers.live import audience as live_audience
from publishers.live.audience import Above

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


def patterns(grants: Grants, identity: Identity = IDENTITY) -> set[str]:
    found = subscriptions(identity, grants, LIMIT)
    assert not found.overflow
    return set(found.patterns)


PATTERNS = [
    # id, targets, expected
    ("project", {PROJECT: READS}, {f"arvados.live.{PROJECT}.>"}),
    ("home project", {ME: READS}, {f"arvados.live.{ME}.>"}),
    ("user readable, not traversed", {SYSTEM: DIRECT}, set()),
    ("object", {COLLECTION: DIRECT}, {f"arvados.live.{COLLECTION}.*.{COLLECTION}.>"}),
    ("request", {REQUEST: DIRECT}, {f"arvados.live.{REQUEST}.*.{REQUEST}.>"}),
    ("direct link to a container", {CONTAINER: DIRECT}, set()),
    ("no well-formed uuid", {"a.>": READS}, set()),
]


@pytest.mark.parametrize(("name", "targets", "expected"), PATTERNS)
def test_grants_become_patterns(name: str, targets: dict[str, int], expected: set[str]) -> None:
    """The table in the module's docstring, and what is left out of the live tree."""
    assert patterns(Grants(ME, targets=targets)) == expected


def test_scopes_narrow_the_branches() -> None:
    """A token that may only GET collections hears of collections alone."""
    grants = Grants(ME, targets={PROJECT: READS, COLLECTION: DIRECT, REQUEST: DIRECT})
    scoped = msgspec.structs.replace(IDENTITY, scopes=("GET /arvados/v1/collections/",))

    assert patterns(grants, scoped) == {
        f"arvados.live.{PROJECT}.*.*.event.collection.>",
        f"arvados.live.{COLLECTION}.*.{COLLECTION}.event.collection.>",
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

    assert subscriptions(IDENTITY, grants, 10) == Subscriptions(overflow=True, needed=11)
    assert len(subscriptions(IDENTITY, grants, 11).patterns) == 11


# --- share points, patterns and the rule agree, whatever the cluster looks like -------------------


@dataclass(frozen=True)
class Cluster:
    """Things in the live tree, the whole table of one reader, and what is known of it."""

    things: list[ObjectFacts]
    table: Grants
    """All rows, as Arvados has them."""
    known: Grants
    """Rows at share points."""
    heads: frozenset[str]
    """What a permission link leads to, from whomever."""

    @property
    def places(self) -> dict[str, Place]:
        return {place.uuid: place for facts in self.things for place in facts.places}


TRASH_AT = st.none() | st.sampled_from([NOW - 1, NOW, NOW + 1])
USERS = (ME, SYSTEM, "zzzzz-tpzed-000000000other0")


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """A forest of projects with things in them, some shared with the reader, some with others."""
    owners: dict[str, str] = {}
    own_trash: dict[str, float | None] = {}
    for n in range(draw(st.integers(1, 6))):
        groups = list(owners)
        owners[f"zzzzz-j7d0g-{n:015d}"] = draw(st.sampled_from([*USERS, *groups]))
    groups = [*owners]
    for n in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["collection", "workflow", "container_request"]))
        infix = subjects.KIND_OF_NAME[kind].infix
        owners[f"zzzzz-{infix}-{n:015d}"] = draw(st.sampled_from([*USERS, *groups]))
    for uuid in owners:
        if uuid[6:11] in ("j7d0g", "4zz18"):
            own_trash[uuid] = draw(TRASH_AT)
    mine = draw(st.dictionaries(st.sampled_from([*owners]), st.integers(1, 3), max_size=4))
    heads = frozenset(mine) | draw(st.frozensets(st.sampled_from([*owners]), max_size=4))
    frozen = draw(st.sets(st.sampled_from(groups), max_size=2))
    return _cluster(owners, own_trash, mine, heads, frozen)


def _cluster(
    owners: dict[str, str],
    own_trash: dict[str, float | None],
    mine: dict[str, int],
    heads: frozenset[str],
    frozen: set[str],
) -> Cluster:
    levels = {ME: 3}
    trashed: dict[str, float] = {}
    above: dict[str, tuple[str, ...]] = {}
    for uuid, owner in owners.items():
        above[uuid] = (owner, *above.get(owner, ()))
        is_group = uuid[6:11] == "j7d0g"
        level = max(mine.get(uuid, 0), levels.get(owner, 0) if is_group else 0)
        if level:
            levels[uuid] = level
        times = [at for at in (own_trash.get(uuid), trashed.get(owner)) if at is not None]
        if is_group and times:
            trashed[uuid] = min(times)
        if is_group and owner in frozen:
            frozen.add(uuid)
    rows = [PermissionRow(ME, u, n, u == ME or u[6:11] == "j7d0g") for u, n in levels.items()]
    at_share_points = [row for row in rows if row.target_uuid in {ME, *mine}]
    return Cluster(
        [
            ObjectFacts(
                next(kind.name for kind in subjects.KINDS if kind.infix == uuid[6:11]),
                uuid,
                owner,
                trash_at=own_trash.get(uuid),
                is_role=False,
                collection_uuid="" if uuid[6:11] == "7fd4e" else None,
                places=(Place(owner, above[owner], trashed.get(owner), owner in frozen),)
                if owner in above
                else (),
            )
            for uuid, owner in owners.items()
        ],
        Grants(
            ME,
            targets=fold(ME, grouped(rows)),
            cluster=ClusterState(trashed, frozenset(frozen)),
        ),
        Grants(ME, targets=fold(ME, grouped(at_share_points))),
        heads,
    )


def container_of(request: ObjectFacts) -> ObjectFacts:
    shown_by = ((request.uuid, request.owner_uuid),)
    return ObjectFacts("container", CONTAINER, SYSTEM, requests=shown_by, places=request.places)


def linked_to(collection: ObjectFacts) -> ObjectFacts:
    return ObjectFacts(
        "workflow",
        WORKFLOW,
        SYSTEM,
        trash_at=collection.trash_at,
        collection_uuid=collection.uuid,
        collection_owner_uuid=collection.owner_uuid,
        places=collection.places,
    )


def link_to(facts: ObjectFacts) -> ObjectFacts:
    return ObjectFacts(
        "link",
        "zzzzz-o0j2j-000000000000001",
        SYSTEM,
        is_permission=True,
        tail_uuid=SYSTEM,
        head_uuid=facts.uuid,
        head_owner_uuid=facts.owner_uuid,
        places=facts.places,
    )


@settings(max_examples=200, deadline=None)
@given(clusters(), st.booleans())
def test_share_points_say_what_the_whole_table_says(cluster: Cluster, trash: bool) -> None:
    """The same pure rule on what is known where access was given, and on all rows: equal."""
    judge = Judge(IDENTITY, cluster.known, NOW)

    for facts in cluster.things:
        asked = [facts, link_to(facts)]
        asked += [container_of(facts)] if facts.kind == "container_request" else []
        asked += [linked_to(facts)] if facts.kind == "collection" else []
        for one in asked:
            expected = decide(IDENTITY, cluster.table, one, NOW, trash)
            assert judge.decide(one, include_trash=trash) is expected, one


def test_where_an_object_is_must_be_known() -> None:
    """Without it nothing is guessed."""
    grants = Grants(ME, targets={PROJECT: READS})
    lost = ObjectFacts("collection", COLLECTION, INNER)
    user = ObjectFacts("user", SYSTEM, SYSTEM, is_active=True, is_merged=False)

    assert Judge(IDENTITY, grants, NOW).decide(lost) is Decision.ASK
    assert Judge(IDENTITY, grants, NOW).decide(user) is Decision.ASK


SEEN = [
    # id, from where links lead to the user, decision
    ("a role that the reader has", (PROJECT,), Decision.YES),
    ("a role of others", (INNER,), Decision.NO),
    ("the reader", (ME,), Decision.YES),
    ("a user whom the reader sees", ("zzzzz-tpzed-0000000000seen0",), Decision.NO),
    ("nobody", (), Decision.NO),
]


@pytest.mark.parametrize(("name", "tails", "expected"), SEEN)
def test_who_sees_a_user_is_known_by_the_role(
    name: str, tails: tuple[str, ...], expected: Decision
) -> None:
    """One entry for each role instead of one for each pair of users."""
    grants = Grants(ME, targets={ME: READS, PROJECT: READS, "zzzzz-tpzed-0000000000seen0": DIRECT})
    user = ObjectFacts("user", SYSTEM, SYSTEM, is_active=True, is_merged=False, seen_by=tails)

    assert Judge(IDENTITY, grants, NOW).decide(user) is expected, name


def event(facts: ObjectFacts, owner: str, shown_as: str) -> Event:
    return Event(
        id=1,
        uuid="",
        event_type="update",
        event_at=None,
        created_at="",
        object_uuid=facts.uuid,
        object_kind="",
        object_owner_uuid=None,
        verified=True,
        audience=[(owner, shown_as)],
        properties={},
        facts={"uuid": facts.uuid, "trash_at": facts.trash_at},
    )


def told(cluster: Cluster, facts: ObjectFacts) -> dict[str, list[str]]:
    """The subjects below which the live publisher tells of a thing, by branch."""
    above = Above(cluster.places, {}, cluster.heads, NOW)
    asked = {facts.kind: facts}
    if facts.kind == "collection":
        asked["linked"] = linked_to(facts)
    found = {
        branch: [
            subjects.live_event(*shown, one.uuid, "update")
            for shown in live_audience.of_event(
                event(one, facts.owner_uuid, facts.uuid), one.kind, above
            )
        ]
        for branch, one in asked.items()
    }
    if facts.kind == "container_request":
        shows = live_audience.of_log([(facts.uuid, facts.owner_uuid)], above)
        found["log"] = [subjects.live_log(*shown, CONTAINER, "stdout.txt") for shown in shows]
    return found


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


@settings(max_examples=150, deadline=None)
@given(clusters())
def test_patterns_let_through_what_the_rule_allows_and_no_more(cluster: Cluster) -> None:
    """Whatever is in the trash or frozen: by what is told below which share point."""
    allowed = patterns(cluster.known)

    for facts in cluster.things:
        asked = {"log": container_of(facts), "linked": linked_to(facts)}
        for branch, found in told(cluster, facts).items():
            one = asked.get(branch, facts)
            readable = decide(IDENTITY, cluster.table, one, NOW, branch not in asked)
            through = any(allows(allowed, subject) for subject in found)
            if branch == "linked" and facts.trash_at is not None:
                assert not through
                continue
            assert through == (readable is Decision.YES), (branch, found, sorted(allowed))


# --- differences ----------------------------------------------------------------------------------

HOLDER = Grants(ME, False, True, {PROJECT: READS, INNER: READS}, generation=1)

CHANGES = [
    # id, new grants, lost, gained
    ("nothing", HOLDER, (), ()),
    ("a share gone", Grants(ME, False, True, {PROJECT: READS}), (INNER,), ()),
    (
        "a share more",
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
]


@pytest.mark.parametrize(("name", "new", "lost", "gained"), CHANGES)
def test_changes_are_told_by_uuid(
    name: str, new: Grants, lost: tuple[str, ...], gained: tuple[str, ...]
) -> None:
    """Lost and gained name share points; the way back is the mirror image."""
    there, back = compare(HOLDER, new), compare(new, HOLDER)

    assert (there.lost, there.gained) == (lost, gained), name
    assert (back.lost, back.gained) == (gained, lost), name
    assert bool(there) == bool(lost or gained)
    assert there.narrows == bool(lost)


def test_what_makes_or_unmakes_an_admin_is_told() -> None:
    """is_admin, is_active and the visibility of roles change what is readable without any row."""
    admin = msgspec.structs.replace(HOLDER, is_admin=True)
    idle = msgspec.structs.replace(HOLDER, is_active=False)
    hidden = msgspec.structs.replace(HOLDER, cluster=ClusterState(role_groups_visible=False))

    assert compare(HOLDER, admin) == Change(ME, 1, gained_admin=True)
    assert compare(admin, HOLDER).narrows
    assert compare(HOLDER, idle).narrows
    assert compare(HOLDER, hidden).narrows
