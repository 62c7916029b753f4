# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The rule over clusters drawn at random, held against the page's own sentences.

`Page` is docs/facts/permission-rule.md written out again, set by set and with nothing folded or
indexed; the rows come from the sandbox's arithmetic of `materialized_permissions`. Owner cycles,
roles that own things, frozen projects inside trashed ones, merged and inactive users all occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from arvados_nats.permissions import grants as grants_of
from arvados_nats.permissions.grants import ClusterState, Grants, PermissionRow
from arvados_nats.permissions.object_facts import facts_of
from arvados_nats.permissions.rule import Decision, Identity, decide
from sandbox.model.derived.permission_graph import LEVELS, MANAGE, Edge, everything

NOW = 1_800_000_000.0
SYSTEM = "zzzzz-tpzed-000000000000000"
USERS = [f"zzzzz-tpzed-{n:015}" for n in range(1, 5)]
GROUPS = [f"zzzzz-j7d0g-{n:015}" for n in range(6)]
KINDS = ("4zz18", "xvhdp", "7fd4e", "oss07", "fngyi", "2x53u")
THINGS = [f"zzzzz-{infix}-{n:015}" for infix in KINDS for n in range(2)]
CONTAINERS = [f"zzzzz-dz642-{n:015}" for n in range(2)]

Record = dict[str, Any]


@dataclass
class Cluster:
    """Records by uuid, and the tables that Arvados keeps about them."""

    records: dict[str, Record]
    rows: dict[tuple[str, str], tuple[int, bool]]
    trashed: dict[str, float]
    frozen: frozenset[str]
    roles_visible: bool


times = st.sampled_from([None, NOW - 5, NOW, NOW + 5])
groups: st.SearchStrategy[Record] = st.fixed_dictionaries(
    {
        "owner_uuid": st.sampled_from([SYSTEM, *USERS, *GROUPS]),
        "group_class": st.sampled_from(["project", "role", "filter"]),
        "trash_at": times,
        "is_frozen": st.booleans(),
    }
)
users: st.SearchStrategy[Record] = st.fixed_dictionaries(
    {
        "owner_uuid": st.sampled_from([SYSTEM, *USERS, *GROUPS]),
        "is_admin": st.sampled_from([False, False, False, True]),
        "is_active": st.booleans(),
        "redirect_to_user_uuid": st.sampled_from([None, None, None, *USERS]),
    }
)
things: st.SearchStrategy[Record] = st.fixed_dictionaries(
    {
        "owner_uuid": st.sampled_from([*USERS, *GROUPS]),
        "trash_at": times,
        "container_uuid": st.sampled_from([None, *CONTAINERS]),
        "collection_uuid": st.sampled_from([None, *THINGS[:2]]),
    }
)
links: st.SearchStrategy[list[Record]] = st.lists(
    st.fixed_dictionaries(
        {
            "owner_uuid": st.sampled_from([SYSTEM, *USERS]),
            "link_class": st.sampled_from(["permission", "permission", "permission", "star"]),
            "name": st.sampled_from([*LEVELS]),
            "tail_uuid": st.sampled_from([*USERS, *GROUPS]),
            "head_uuid": st.sampled_from([*USERS, *GROUPS, *THINGS, *CONTAINERS]),
        }
    ),
    max_size=10,
)
logs: st.SearchStrategy[list[Record]] = st.lists(
    st.fixed_dictionaries(
        {
            "owner_uuid": st.sampled_from([SYSTEM, *USERS]),
            "object_uuid": st.sampled_from([None, *THINGS, *CONTAINERS, *GROUPS]),
            "object_owner_uuid": st.sampled_from([None, *USERS, *GROUPS]),
        }
    ),
    max_size=3,
)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Any cluster that fits on a page; owners may go in a circle, which Arvados refuses."""
    records: dict[str, Record] = {uuid: {"uuid": uuid, **draw(users)} for uuid in USERS}
    records |= {uuid: {"uuid": uuid, **draw(groups)} for uuid in GROUPS}
    records |= {uuid: {"uuid": uuid, **draw(things)} for uuid in THINGS}
    records |= {uuid: {"uuid": uuid, "owner_uuid": SYSTEM} for uuid in CONTAINERS}
    for infix, found in (("o0j2j", draw(links)), ("57u5n", draw(logs))):
        for number, record in enumerate(found):
            uuid = f"zzzzz-{infix}-{number:015}"
            records[uuid] = {"uuid": uuid, **record}
    table = everything(_edges(records), USERS)
    return Cluster(
        records,
        {key: (grant.level, grant.traverse_owned) for key, grant in table.items()},
        _inherited(records, lambda group: group["trash_at"]),
        frozenset(_inherited(records, lambda group: 0.0 if group["is_frozen"] else None)),
        draw(st.booleans()),
    )


def _edges(records: dict[str, Record]) -> list[Edge]:
    found = []
    for uuid, record in records.items():
        if uuid in USERS or uuid in GROUPS:
            found.append(Edge(record["owner_uuid"], uuid, MANAGE, uuid))
        if record.get("link_class") == "permission":
            level = LEVELS[record["name"]]
            found.append(Edge(record["tail_uuid"], record["head_uuid"], level, uuid))
    return found


def _inherited(records: dict[str, Record], own: Any) -> dict[str, float]:
    """The earliest of a group's own and of the groups above it."""
    found = {}
    for uuid in GROUPS:
        chain: list[str] = []
        at = uuid
        while at in GROUPS and at not in chain:
            chain.append(at)
            at = records[at]["owner_uuid"]
        times = [time for group in chain if (time := own(records[group])) is not None]
        if times:
            found[uuid] = min(times)
    return found


class Page:
    """The page's rule, for one user."""

    def __init__(self, cluster: Cluster, user: str) -> None:
        self.cluster = cluster
        self.user = user
        self.me = cluster.records[user]
        self.admin = self.me["is_admin"]

    def row(self, user: str, target: str | None) -> tuple[int, bool]:
        return self.cluster.rows.get((user, target or ""), (0, False))

    def with_level(self, least: int) -> set[str]:
        """U_n(u)."""
        found = {
            other
            for other in USERS
            if self.row(self.user, other)[0] >= least and self.row(self.user, other)[1]
        }
        return found | {self.user}

    def direct(self, record: Record) -> bool:
        return any(self.row(x, record["uuid"])[0] >= 1 for x in self.with_level(1))

    def owned(self, record: Record) -> bool:
        rows = [self.row(x, record["owner_uuid"]) for x in self.with_level(1)]
        return any(level >= 1 and traverse for level, traverse in rows)

    def manages(self, head: str | None) -> bool:
        if self.admin or head == self.user:
            return True
        owner = self.cluster.records.get(head or "", {}).get("owner_uuid")
        return any(
            self.row(x, head)[0] >= 3 or (self.row(x, owner)[0] >= 3 and self.row(x, owner)[1])
            for x in self.with_level(3)
        )

    def hidden(self, record: Record, include_trash: bool) -> bool:
        trashable = record["uuid"][6:11] in ("4zz18", "j7d0g")
        if trashable and include_trash:
            if self.admin or record["owner_uuid"] not in self.cluster.frozen:
                return False
        times = [self.cluster.trashed.get(record["owner_uuid"])]
        times += [record["trash_at"]] if trashable else []
        return any(time is not None and time <= NOW for time in times)

    def reads(self, record: Record, include_trash: bool) -> bool:
        by_infix = {
            "j7d0g": self._group,
            "tpzed": self._user,
            "dz642": self._container,
            "o0j2j": self._link,
            "57u5n": self._log,
            "7fd4e": self._workflow,
        }
        return bool(by_infix.get(record["uuid"][6:11], self._shared)(record, include_trash))

    def _shared(self, record: Record, include_trash: bool) -> bool:
        way_in = self.admin or self.direct(record) or self.owned(record)
        return way_in and not self.hidden(record, include_trash)

    def _group(self, record: Record, include_trash: bool) -> bool:
        visible = self.cluster.roles_visible and self.me["is_active"]
        role = record["group_class"] == "role" and visible
        way_in = self.admin or self.direct(record) or role
        return way_in and not self.hidden(record, include_trash)

    def _workflow(self, record: Record, include_trash: bool) -> bool:
        linked = self.cluster.records.get(record["collection_uuid"] or "")
        return self._shared(linked or record, include_trash and not linked)

    def _user(self, record: Record, include_trash: bool) -> bool:
        seen = self.admin or record["uuid"] == self.user or record["is_active"]
        merged = record["redirect_to_user_uuid"] is not None
        return seen and not merged and self._shared(record, include_trash)

    def _container(self, record: Record, include_trash: bool) -> bool:
        return self.admin or any(
            self._shared(request, False) for request in self._requests(record["uuid"])
        )

    def _requests(self, container: str | None) -> list[Record]:
        return [
            record
            for uuid, record in self.cluster.records.items()
            if uuid[6:11] == "xvhdp" and container and record["container_uuid"] == container
        ]

    def _link(self, record: Record, include_trash: bool) -> bool:
        if record["link_class"] != "permission":
            return self._shared(record, include_trash)
        return record["tail_uuid"] == self.user or self.manages(record["head_uuid"])

    def _log(self, record: Record, include_trash: bool) -> bool:
        named = [record["object_uuid"], record["owner_uuid"], record["object_owner_uuid"]]
        for request in self._requests(record["object_uuid"]):
            named += [request["uuid"], request["owner_uuid"]]
        return self.admin or any(self.row(self.user, uuid)[0] >= 1 for uuid in named)


def _grants(cluster: Cluster, user: str) -> Grants:
    rows = grants_of.grouped(PermissionRow(*key, *row) for key, row in cluster.rows.items())
    me = cluster.records[user]
    state = ClusterState(cluster.trashed, cluster.frozen, cluster.roles_visible)
    targets = grants_of.fold(user, rows)
    return Grants(user, me["is_admin"], me["is_active"], targets, cluster=state)


def _ours(cluster: Cluster, grants: Grants, record: Record, include_trash: bool) -> Decision:
    subject = record.get("object_uuid") or record["uuid"]
    requests = tuple(
        (uuid, other["owner_uuid"])
        for uuid, other in cluster.records.items()
        if uuid[6:11] == "xvhdp" and other["container_uuid"] == subject
    )
    head = cluster.records.get(record.get("head_uuid") or "", {})
    at = record.get("trash_at")
    as_row = record | {"trash_at": None if at is None else _moment(at)}
    linked = cluster.records.get(record.get("collection_uuid") or "", {})
    as_row["collection_owner_uuid"] = linked.get("owner_uuid", "")
    at = linked.get("trash_at")
    as_row["collection_trash_at"] = None if at is None else _moment(at)
    facts = facts_of(as_row, requests=requests, head_owner_uuid=head.get("owner_uuid") or "")
    identity = Identity("zzzzz-gj3su-00000000000mine", grants.user_uuid)
    return decide(identity, grants, facts, NOW, include_trash)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@settings(deadline=None, max_examples=60)
@given(clusters())
def test_the_rule_says_what_the_page_says(cluster: Cluster) -> None:
    """Every user, every object, both questions: yes where the page says readable, else no."""
    for user in USERS:
        page, grants = Page(cluster, user), _grants(cluster, user)
        for record in cluster.records.values():
            for include_trash in (False, True):
                expected = Decision.YES if page.reads(record, include_trash) else Decision.NO
                found = _ours(cluster, grants, record, include_trash)
                if include_trash and record.get("collection_uuid") and found is Decision.ASK:
                    continue  # the page does not say, and we do not guess
                assert found is expected, (user, record, include_trash)
