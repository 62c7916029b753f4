# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The read rule as tables: one row per line of docs/facts/permission-rule.md, cited by its term."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from arvados_nats.permissions.grants import (
    DIRECT,
    MANAGES,
    MANAGES_OWNED,
    OWN_ROW,
    OWNED,
    ClusterState,
    Grants,
)
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import Decision, Identity, decide, scopes_allow

YES, NO, ASK = Decision.YES, Decision.NO, Decision.ASK
NOW = 1_800_000_000.0
PAST, FUTURE = NOW - 1, NOW + 1

ME = "zzzzz-tpzed-000000000000me0"
OTHER = "zzzzz-tpzed-000000000other0"
SYSTEM = "zzzzz-tpzed-000000000000000"
PROJECT = "zzzzz-j7d0g-000000000000pro"
ROLE = "zzzzz-j7d0g-000000000000rol"
UUID_OF = {
    "collection": "zzzzz-4zz18-000000000000001",
    "container_request": "zzzzz-xvhdp-000000000000001",
    "workflow": "zzzzz-7fd4e-000000000000001",
    "credential": "zzzzz-oss07-000000000000001",
    "authorized_key": "zzzzz-fngyi-000000000000001",
    "virtual_machine": "zzzzz-2x53u-000000000000001",
    "link": "zzzzz-o0j2j-000000000000001",
    "container": "zzzzz-dz642-000000000000001",
    "log": "zzzzz-57u5n-000000000000001",
    "api_client_authorization": "zzzzz-gj3su-000000000000001",
}
CR = UUID_OF["container_request"]
GENERIC = [
    "collection",
    "container_request",
    "workflow",
    "credential",
    "authorized_key",
    "virtual_machine",
]
READS = DIRECT | OWNED
MANAGED = READS | MANAGES | MANAGES_OWNED


@dataclass
class Situation:
    """A reader and the state of the cluster; by default an active user without any grant."""

    targets: dict[str, int] = field(default_factory=dict)
    admin: bool = False
    active: bool = True
    trashed: dict[str, float] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    roles_visible: bool | None = True
    root: bool = False
    scopes: tuple[str, ...] = ("all",)
    expires_at: float | None = None

    def decide(self, facts: ObjectFacts, include_trash: bool = False) -> Decision:
        cluster = ClusterState(self.trashed, self.frozen, self.roles_visible)
        grants = Grants(ME, self.admin, self.active, self.targets, cluster=cluster)
        identity = Identity(
            "zzzzz-gj3su-00000000000mine",
            ME,
            is_root=self.root,
            scopes=self.scopes,
            expires_at=self.expires_at,
        )
        return decide(identity, grants, facts, NOW, include_trash)


def an(kind: str, **facts: object) -> ObjectFacts:
    """An object of a kind, in the project unless said otherwise."""
    if kind == "link":
        facts = {"is_permission": False} | facts
    if kind == "workflow":
        facts = {"collection_uuid": ""} | facts
    uuid = facts.pop("uuid", UUID_OF.get(kind))
    return ObjectFacts(kind, uuid, facts.pop("owner_uuid", PROJECT), **facts)  # type: ignore[arg-type]


# --- (direct or owned) and not hidden -------------------------------------------------------------

SHARED = [
    ("nothing granted", {}, {}, NO),
    ("direct(o)", {"self": DIRECT}, {}, YES),
    ("owned(o)", {PROJECT: READS}, {}, YES),
    ("owner readable without traverse_owned", {PROJECT: DIRECT}, {}, NO),
    ("another's own row only", {"self": OWN_ROW}, {}, NO),
    ("owned, trash(o.owner_uuid) effective", {PROJECT: READS}, {PROJECT: PAST}, NO),
    ("owned, trash time reached exactly", {PROJECT: READS}, {PROJECT: NOW}, NO),
    ("owned, trash time to come", {PROJECT: READS}, {PROJECT: FUTURE}, YES),
    ("direct, trash(o.owner_uuid) effective", {"self": DIRECT}, {PROJECT: PAST}, NO),
    ("another project in the trash", {PROJECT: READS}, {ROLE: PAST}, YES),
]


@pytest.mark.parametrize("kind", [*GENERIC, "link"])
@pytest.mark.parametrize(("situation", "targets", "trashed", "expected"), SHARED)
def test_shared_kinds_need_a_way_in_and_no_trash(
    kind: str,
    situation: str,
    targets: dict[str, int],
    trashed: dict[str, float],
    expected: Decision,
) -> None:
    """Collections, requests, workflows, credentials, keys, machines, plain links: one rule."""
    named = {UUID_OF[kind] if key == "self" else key: bits for key, bits in targets.items()}

    assert Situation(named, trashed=trashed).decide(an(kind)) is expected, situation


@pytest.mark.parametrize("kind", [*GENERIC, "link"])
def test_admin_reads_what_is_not_hidden(kind: str) -> None:
    """Anything, u admin: not hidden; a request in a trashed project is 404 even for admins."""
    assert Situation(admin=True).decide(an(kind)) is YES
    assert Situation(admin=True, trashed={PROJECT: PAST}).decide(an(kind)) is NO


@pytest.mark.parametrize("kind", [kind for kind in GENERIC if kind != "collection"])
def test_include_trash_has_no_effect_outside_groups_and_collections(kind: str) -> None:
    """include_trash lifts hidden for groups and collections only (docs/facts/arvados.md 9)."""
    for admin in (False, True):
        reader = Situation({PROJECT: READS}, admin=admin, trashed={PROJECT: PAST})
        assert reader.decide(an(kind), include_trash=True) is NO


# --- trash of collections and groups --------------------------------------------------------------

TRASH = [
    # id, own trash_at, owner's trash, owner frozen, admin, plain, include_trash
    ("not in the trash", None, None, False, False, YES, YES),
    ("own trash_at passed", PAST, None, False, False, NO, YES),
    ("own trash_at reached", NOW, None, False, False, NO, YES),
    ("own trash_at to come", FUTURE, None, False, False, YES, YES),
    ("owner in the trash", None, PAST, False, False, NO, YES),
    ("owner's trash time to come", None, FUTURE, False, False, YES, YES),
    ("own trash in a frozen owner", PAST, None, True, False, NO, NO),
    ("frozen owner in the trash", None, PAST, True, False, NO, NO),
    ("frozen owner, no trash", None, None, True, False, YES, YES),
    ("admin, own trash_at passed", PAST, None, False, True, NO, YES),
    ("admin, own trash in a frozen owner", PAST, None, True, True, NO, YES),
    ("admin, frozen owner in the trash", None, PAST, True, True, NO, YES),
]


@pytest.mark.parametrize("kind", ["collection", "group"])
@pytest.mark.parametrize(
    ("situation", "trash_at", "owner_trash", "frozen", "admin", "plain", "with_trash"), TRASH
)
def test_trash_hides_groups_and_collections(
    kind: str,
    situation: str,
    trash_at: float | None,
    owner_trash: float | None,
    frozen: bool,
    admin: bool,
    plain: Decision,
    with_trash: Decision,
) -> None:
    """hidden(o) and include_trash; for non-admins not lifted inside a frozen project."""
    uuid = UUID_OF.get(kind, ROLE)
    facts = an(kind, uuid=uuid, trash_at=trash_at)
    reader = Situation(
        {} if admin else {uuid: READS},
        admin=admin,
        trashed={} if owner_trash is None else {PROJECT: owner_trash},
        frozen=frozenset({PROJECT}) if frozen else frozenset(),
    )

    assert reader.decide(facts) is plain, situation
    assert reader.decide(facts, include_trash=True) is with_trash, situation


# --- workflows ------------------------------------------------------------------------------------

LINKED = {"collection_uuid": UUID_OF["collection"], "collection_owner_uuid": ROLE}
WORKFLOWS = [
    # situation, reader, facts, plain, with include_trash
    ("own project readable alone", Situation({PROJECT: READS}), LINKED, NO, NO),
    ("the workflow itself shared", Situation({UUID_OF["workflow"]: DIRECT}), LINKED, NO, NO),
    ("the collection's project readable", Situation({ROLE: READS}), LINKED, YES, YES),
    ("the collection shared", Situation({UUID_OF["collection"]: DIRECT}), LINKED, YES, YES),
    ("admin", Situation(admin=True), LINKED, YES, YES),
    (
        "the collection in the trash",
        Situation({ROLE: READS}),
        {**LINKED, "trash_at": PAST},
        NO,
        ASK,
    ),
    (
        "its project in the trash",
        Situation({ROLE: READS}, trashed={ROLE: PAST}),
        LINKED,
        NO,
        ASK,
    ),
    (
        "the collection is gone",
        Situation(admin=True),
        {**LINKED, "collection_owner_uuid": ""},
        ASK,
        ASK,
    ),
    ("nobody said", Situation({PROJECT: READS}), {"collection_uuid": None}, ASK, ASK),
]


@pytest.mark.parametrize(("situation", "reader", "facts", "plain", "with_trash"), WORKFLOWS)
def test_a_linked_workflow_is_read_with_its_collection(
    situation: str,
    reader: Situation,
    facts: dict[str, object],
    plain: Decision,
    with_trash: Decision,
) -> None:
    """Exactly those who may read the collection, wherever the workflow itself is (V5)."""
    workflow = an("workflow", **facts)

    assert reader.decide(workflow) is plain, situation
    assert reader.decide(workflow, include_trash=True) is with_trash, situation


# --- groups ---------------------------------------------------------------------------------------

GROUPS = [
    # id, situation, is_role, expected
    ("direct", Situation({PROJECT: READS}), False, YES),
    ("owner readable alone", Situation({SYSTEM: READS}), False, NO),
    ("nothing, no role", Situation(), False, NO),
    ("role, visible to all, active reader", Situation(), True, YES),
    ("role, visible to all, inactive reader", Situation(active=False), True, NO),
    ("role, Users.RoleGroupsVisibleToAll off", Situation(roles_visible=False), True, NO),
    ("role, off, but direct", Situation({PROJECT: READS}, roles_visible=False), True, YES),
    ("class unknown, might be a visible role", Situation(), None, ASK),
    ("class unknown, roles not visible", Situation(roles_visible=False), None, NO),
    ("role, the switch unknown", Situation(roles_visible=None), True, ASK),
    ("role, unknown, inactive reader", Situation(active=False, roles_visible=None), True, NO),
    ("role, unknown, but direct", Situation({PROJECT: READS}, roles_visible=None), True, YES),
    ("no role, the switch unknown", Situation(roles_visible=None), False, NO),
    ("class unknown, direct", Situation({PROJECT: READS}), None, YES),
    ("admin", Situation(admin=True, active=False), False, YES),
]


@pytest.mark.parametrize(("name", "reader", "is_role", "expected"), GROUPS)
def test_groups_are_read_directly_or_as_visible_roles(
    name: str, reader: Situation, is_role: bool | None, expected: Decision
) -> None:
    """Group: direct, or a role group that is visible to all and the reader is active."""
    group = an("group", uuid=PROJECT, owner_uuid=SYSTEM, is_role=is_role)

    assert reader.decide(group) is expected, name


def test_a_role_in_the_trash_is_hidden() -> None:
    """... and not hidden, visible or not."""
    role = an("group", uuid=ROLE, owner_uuid=SYSTEM, is_role=True, trash_at=PAST)

    assert Situation().decide(role) is NO
    assert Situation({ROLE: READS}).decide(role) is NO


# --- users ----------------------------------------------------------------------------------------

USERS = [
    # id, situation, uuid, is_active, is_merged, expected
    ("nothing granted", Situation(), OTHER, True, False, NO),
    ("direct, active", Situation({OTHER: DIRECT}), OTHER, True, False, YES),
    ("direct, inactive", Situation({OTHER: DIRECT}), OTHER, False, False, NO),
    ("owned, active", Situation({SYSTEM: READS}), OTHER, True, False, YES),
    ("self, inactive", Situation({ME: MANAGED}, active=False), ME, False, False, YES),
    ("merged away, active", Situation({OTHER: DIRECT}), OTHER, True, True, NO),
    ("merged away, asked by an admin", Situation(admin=True), OTHER, True, True, NO),
    ("admin, inactive target", Situation(admin=True), OTHER, False, False, YES),
    ("active unknown", Situation({OTHER: DIRECT}), OTHER, None, False, ASK),
    ("merge unknown", Situation({OTHER: DIRECT}), OTHER, True, None, ASK),
    ("unknown, but no way in", Situation(), OTHER, None, None, NO),
]


@pytest.mark.parametrize(("name", "reader", "uuid", "active", "merged", "expected"), USERS)
def test_users_are_seen_by_those_who_reach_them_while_active(
    name: str,
    reader: Situation,
    uuid: str,
    active: bool | None,
    merged: bool | None,
    expected: Decision,
) -> None:
    """User: (direct or owned) and (self, or the target is active). A merged-away user: nobody."""
    user = an("user", uuid=uuid, owner_uuid=SYSTEM, is_active=active, is_merged=merged)

    assert reader.decide(user) is expected, name


# --- containers -----------------------------------------------------------------------------------

CONTAINER = UUID_OF["container"]
CONTAINERS = [
    # id, situation, requests, expected
    ("no request", Situation({CONTAINER: DIRECT}), (), NO),
    ("a direct link counts for nothing", Situation({CONTAINER: READS}), ((CR, OTHER),), NO),
    ("owner of the container counts for nothing", Situation({SYSTEM: READS}), ((CR, OTHER),), NO),
    ("request owned", Situation({PROJECT: READS}), ((CR, PROJECT),), YES),
    ("request direct", Situation({CR: DIRECT}), ((CR, PROJECT),), YES),
    ("second request readable", Situation({PROJECT: READS}), ((CR, OTHER), (CR, PROJECT)), YES),
    (
        "request in the trash",
        Situation({PROJECT: READS}, trashed={PROJECT: PAST}),
        ((CR, PROJECT),),
        NO,
    ),
    ("requests unknown", Situation({PROJECT: READS}), None, ASK),
    ("admin, whatever is in the trash", Situation(admin=True, trashed={PROJECT: PAST}), (), YES),
]


@pytest.mark.parametrize(("name", "reader", "requests", "expected"), CONTAINERS)
def test_containers_are_seen_through_their_requests(
    name: str,
    reader: Situation,
    requests: tuple[tuple[str, str], ...] | None,
    expected: Decision,
) -> None:
    """Container: a request that points to it is readable without include_trash."""
    container = an("container", owner_uuid=SYSTEM, requests=requests)

    assert reader.decide(container) is expected, name
    assert reader.decide(container, include_trash=True) is expected, name


# --- permission links -----------------------------------------------------------------------------

LINKS = [
    # id, situation, tail, head, head's owner, expected
    ("tail = u", Situation(), ME, PROJECT, OTHER, YES),
    ("tail = u, head gone", Situation(), ME, None, None, YES),
    ("h = u", Situation(), OTHER, ME, SYSTEM, YES),
    ("manage(head)", Situation({PROJECT: MANAGED}), OTHER, PROJECT, OTHER, YES),
    ("head readable and no more", Situation({PROJECT: READS}), OTHER, PROJECT, OTHER, NO),
    ("owner of head managed", Situation({PROJECT: MANAGED}), OTHER, "head", PROJECT, YES),
    (
        "owner of head managed without traverse_owned",
        Situation({PROJECT: DIRECT | MANAGES}),
        OTHER,
        "head",
        PROJECT,
        NO,
    ),
    ("owner of head unknown", Situation({PROJECT: MANAGED}), OTHER, "head", None, ASK),
    ("head gone", Situation({PROJECT: MANAGED}), OTHER, None, None, NO),
    ("link itself direct", Situation({UUID_OF["link"]: DIRECT}), OTHER, PROJECT, OTHER, NO),
    ("owner of the link readable", Situation({SYSTEM: READS}), OTHER, PROJECT, OTHER, NO),
    ("admin", Situation(admin=True), OTHER, PROJECT, OTHER, YES),
    (
        "trash is ignored",
        Situation({PROJECT: MANAGED}, trashed={PROJECT: PAST, SYSTEM: PAST}),
        OTHER,
        PROJECT,
        OTHER,
        YES,
    ),
]


@pytest.mark.parametrize(("name", "reader", "tail", "head", "head_owner", "expected"), LINKS)
def test_permission_links_are_seen_from_their_ends(
    name: str,
    reader: Situation,
    tail: str,
    head: str | None,
    head_owner: str | None,
    expected: Decision,
) -> None:
    """Permission link, GET of one: tail = u, or manage(head)."""
    link = an(
        "link",
        owner_uuid=SYSTEM,
        is_permission=True,
        tail_uuid=tail,
        head_uuid=UUID_OF["collection"] if head == "head" else head,
        head_owner_uuid=head_owner,
    )

    assert reader.decide(link) is expected, name


def test_a_link_of_unknown_class_is_asked() -> None:
    """The two kinds of link have different rules, so neither is guessed."""
    assert Situation({PROJECT: READS}).decide(an("link", is_permission=None)) is ASK


# --- log rows -------------------------------------------------------------------------------------

COLLECTION = UUID_OF["collection"]
LOGS = [
    # id, targets, facts, expected
    ("object_uuid", {COLLECTION: OWN_ROW | DIRECT}, {"object_uuid": COLLECTION}, YES),
    ("owner_uuid", {OTHER: OWN_ROW | DIRECT}, {"owner_uuid": OTHER}, YES),
    ("object_owner_uuid", {PROJECT: OWN_ROW | READS}, {"object_owner_uuid": PROJECT}, YES),
    ("uuid of a request", {CR: OWN_ROW | DIRECT}, {"requests": ((CR, OTHER),)}, YES),
    ("owner of a request", {PROJECT: OWN_ROW | READS}, {"requests": ((CR, PROJECT),)}, YES),
    ("no U_n: reached through another user", {PROJECT: READS}, {"object_owner_uuid": PROJECT}, NO),
    ("nothing", {}, {"object_uuid": COLLECTION}, NO),
    ("requests unknown", {}, {"object_uuid": CONTAINER, "requests": None}, ASK),
    ("posted row without object", {}, {"object_uuid": None, "object_owner_uuid": None}, NO),
]


@pytest.mark.parametrize(("name", "targets", "facts", "expected"), LOGS)
def test_log_rows_follow_the_users_own_rows(
    name: str, targets: dict[str, int], facts: dict[str, object], expected: Decision
) -> None:
    """Log row: P(u, .) on any of the uuids it names; no U_n, no trash."""
    row = an("log", **({"owner_uuid": SYSTEM, "requests": ()} | facts))

    assert Situation(targets, trashed={PROJECT: PAST}).decide(row) is expected, name


def test_admins_read_every_log_row() -> None:
    """Log, admin: all (docs/facts/arvados.md 1)."""
    assert Situation(admin=True).decide(an("log", requests=None)) is YES


# --- tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reader", "owner", "expected"),
    [
        ("own", Situation(), ME, YES),
        ("another's", Situation({OTHER: MANAGED}), OTHER, NO),
        ("another's, admin", Situation(admin=True), OTHER, NO),
        ("another's, SystemRootToken", Situation(admin=True, root=True), OTHER, YES),
    ],
)
def test_tokens_are_their_owners(
    name: str, reader: Situation, owner: str, expected: Decision
) -> None:
    """Token: own only; SystemRootToken all."""
    token = an("api_client_authorization", owner_uuid=owner)

    assert reader.decide(token) is expected, name


# --- scopes and the token's own life --------------------------------------------------------------

SCOPES = [
    # scopes, method, path, expected (docs/facts/arvados.md 2, Scopes)
    (("all",), "GET", "/arvados/v1/collections/x", True),
    (("GET /",), "GET", "/arvados/v1/collections/x", True),
    (("GET /",), "POST", "/arvados/v1/collections", False),
    (("GET /arvados/v1/collections/",), "GET", "/arvados/v1/collections/x", True),
    (("GET /arvados/v1/collections/",), "GET", "/arvados/v1/collections", False),
    (("GET /arvados/v1/collections",), "GET", "/arvados/v1/collections", True),
    (("GET /arvados/v1/collections",), "GET", "/arvados/v1/collections/x", False),
    (("GET /arvados/v1/collections/x",), "GET", "/arvados/v1/collections/x", True),
    (("GET /arvados/v1/collections/",), "HEAD", "/arvados/v1/collections/x", True),
    (("HEAD /arvados/v1/collections/",), "GET", "/arvados/v1/collections/x", False),
    (("POST /a", "GET /b"), "GET", "/b", True),
    ((), "GET", "/", False),
]


@pytest.mark.parametrize(("scopes", "method", "path", "expected"), SCOPES)
def test_scopes_are_matched_as_arvados_does(
    scopes: tuple[str, ...], method: str, path: str, expected: bool
) -> None:
    """A scope is `all`, an exact request, or a prefix if it ends in a slash."""
    assert scopes_allow(scopes, method, path) is expected


def test_a_scoped_token_reads_the_users_set_of_the_covered_kinds() -> None:
    """Scoped token: exactly the user's set for the types its scopes cover, no for the rest."""
    reader = Situation({PROJECT: READS}, scopes=("GET /arvados/v1/collections/",))

    assert reader.decide(an("collection")) is YES
    assert reader.decide(an("collection", owner_uuid=OTHER)) is NO
    assert reader.decide(an("workflow")) is NO


def test_an_expired_token_reads_nothing() -> None:
    """Validity: expires_at null or in the future (docs/facts/arvados.md 2)."""
    assert Situation({PROJECT: READS}, expires_at=NOW).decide(an("collection")) is NO
    assert Situation({PROJECT: READS}, expires_at=FUTURE).decide(an("collection")) is YES


def test_a_kind_without_a_rule_is_asked() -> None:
    """Where the page gives no rule Arvados answers, admin or not."""
    service = an("keep_service", uuid="zzzzz-bi6l4-000000000000001")

    assert Situation(admin=True).decide(service) is ASK


def test_decisions_are_fast_enough_for_the_hot_path() -> None:
    """One process decides several hundred thousand times a second (aim 500,000)."""
    grants = Grants(ME, targets={f"zzzzz-j7d0g-{n:015d}": READS for n in range(10_000)})
    identity = Identity("zzzzz-gj3su-00000000000mine", ME)
    facts = an("collection", owner_uuid=f"zzzzz-j7d0g-{4711:015d}")
    rounds = 20_000

    started = time.process_time()
    for _ in range(rounds):
        decide(identity, grants, facts, NOW, True)
    spent = time.process_time() - started

    # Far below the aim, so that a busy machine does not fail the suite; a scan of the grants would.
    assert rounds / spent > 100_000
