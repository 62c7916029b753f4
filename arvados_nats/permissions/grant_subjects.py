# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Grants as NATS subjects: what a user with a native NATS connection may subscribe to.

Pure. NATS compares subjects and knows no rule, so a pattern may be handed out only where
the rule says yes to every message that can appear below it; that is why the live tree holds the
kinds whose rule is owner and object alone (docs/facts/permission-rule.md, last section).

Events are judged with include_trash, as arvados-ws does; it lifts the trash for collections and
groups, and does nothing for the rest (a request, its container, the container's log, a workflow).
So what a pattern may cover depends on the owner:

===================  ==================================================================
owner                covers
===================  ==================================================================
plain                everything: `arvados.live.<owner>.>`
in the trash         collections and groups only; a request in a trashed project is
                     hidden even from admins
frozen               all but collections and groups: include_trash does not lift their own
                     trash there, which no subject shows. Nothing is lost: what is in a
                     frozen project does not change
frozen, in the trash nothing
===================  ==================================================================

Groups below an owner are readable because `materialized_permissions` holds a row for each group in
a readable one. A trash time that passes changes the patterns; `next_change` says when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.permissions.grants import DIRECT, OWNED, ClusterState, Grants
from arvados_nats.permissions.rule import ALL, Identity, scopes_allow

LOG = "log"
"""The branch of the live tree that holds container logs; the others are kinds of events."""

_TRASHABLE = ("collection", "group")
_UNTRASHABLE = ("container_request", "container", "workflow", LOG)
_BRANCHES = _TRASHABLE + _UNTRASHABLE
_BRANCHES_OF_OBJECT = {
    "collection": ("collection", "workflow"),
    "group": ("group",),
    "workflow": ("workflow",),
    "container_request": ("container_request", "container", LOG),
}
"""What can appear below `arvados.live.*.<object>` for an object of this kind."""

_PATHS_OF_BRANCH = {
    branch: (f"/arvados/v1/{subjects.KIND_OF_NAME[branch].path}/",)
    for branch in _BRANCHES
    if branch != LOG
} | {LOG: ("/arvados/v1/container_requests/", "/arvados/v1/containers/")}


class Subscriptions(msgspec.Struct, frozen=True):
    """Patterns that a user may subscribe to, or how many there would have been.

    With `overflow` the list is empty: the user reaches more than a NATS login can carry, and is to
    be served another way.
    """

    patterns: tuple[str, ...] = ()
    overflow: bool = False
    needed: int = 0


def subscriptions(identity: Identity, grants: Grants, now: float, limit: int) -> Subscriptions:
    """The live patterns of one token, at most `limit` of them.

    Admins get those of their own targets here, like anybody; that they read the streams instead
    is the callout's business. A scoped token gets the branches that its scopes cover.
    """
    patterns = list(_patterns(identity, grants, now))
    if len(patterns) > limit:
        return Subscriptions(overflow=True, needed=len(patterns))
    return Subscriptions(tuple(patterns), needed=len(patterns))


def next_change(grants: Grants, now: float) -> float | None:
    """When the first trash time after `now` changes what these grants give, or None."""
    trashed = grants.cluster.trashed
    coming = [
        at
        for uuid in _groups_that_matter(grants)
        if (at := trashed.get(uuid)) is not None and at > now
    ]
    return min(coming, default=None)


def _groups_that_matter(grants: Grants) -> Iterator[str]:
    if grants.is_admin:
        yield from grants.cluster.trashed
    else:
        yield from grants.owners()
        yield from grants.owner_of.values()


def _patterns(identity: Identity, grants: Grants, now: float) -> Iterator[str]:
    allowed = covered_branches(identity.scopes)
    for uuid, bits in grants.targets.items():
        if not subjects.is_uuid(uuid):
            continue
        if bits & OWNED:
            yield from _owner_patterns(uuid, _below_owner(grants.cluster, uuid, now), allowed)
        if bits & DIRECT and uuid in grants.owner_of:
            yield from _object_patterns(uuid, _of_object(grants, uuid, now), allowed)


def covered_branches(scopes: tuple[str, ...]) -> frozenset[str]:
    """The branches of the live tree whose every object these scopes may GET."""
    if ALL in scopes:
        return frozenset(_BRANCHES)
    return frozenset(
        branch
        for branch, paths in _PATHS_OF_BRANCH.items()
        if all(scopes_allow(scopes, "GET", path) for path in paths)
    )


def _below_owner(cluster: ClusterState, owner: str, now: float) -> tuple[str, ...]:
    frozen = owner in cluster.frozen
    if cluster.is_trashed(owner, now):
        return () if frozen else _TRASHABLE
    return _UNTRASHABLE if frozen else _BRANCHES


def _of_object(grants: Grants, uuid: str, now: float) -> tuple[str, ...]:
    kind = subjects.kind_of(uuid)
    possible = _BRANCHES_OF_OBJECT.get(kind.name, ()) if kind else ()
    open_here = _below_owner(grants.cluster, grants.owner_of[uuid], now)
    return tuple(branch for branch in possible if branch in open_here)


def _owner_patterns(
    owner: str, branches: tuple[str, ...], allowed: frozenset[str]
) -> Iterator[str]:
    if branches is _BRANCHES and len(allowed) == len(_BRANCHES):
        yield subjects.live_owner(owner)
    else:
        yield from _branch_patterns(f"{subjects.LIVE}.{owner}.*", branches, allowed)


def _object_patterns(obj: str, branches: tuple[str, ...], allowed: frozenset[str]) -> Iterator[str]:
    kind = subjects.kind_of(obj)
    whole = kind is not None and branches == _BRANCHES_OF_OBJECT.get(kind.name)
    if whole and allowed.issuperset(branches):
        yield subjects.live_object(obj)
    else:
        yield from _branch_patterns(f"{subjects.LIVE}.*.{obj}", branches, allowed)


def _branch_patterns(
    prefix: str, branches: tuple[str, ...], allowed: frozenset[str]
) -> Iterator[str]:
    for branch in branches:
        if branch in allowed:
            yield f"{prefix}.log.>" if branch == LOG else f"{prefix}.event.{branch}.>"


class Change(msgspec.Struct, frozen=True):
    """What one user can no longer, or can newly, read between two generations of grants.

    `lost` and `gained` hold uuids: owners whose possessions are concerned, or objects. A demoted
    admin has lost everything that no other right gives, which is not listed.
    """

    user_uuid: str
    generation: int
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()
    lost_admin: bool = False
    gained_admin: bool = False
    active_changed: bool = False

    def __bool__(self) -> bool:
        return bool(self.lost or self.gained or self.active_changed) or self.narrows

    @property
    def narrows(self) -> bool:
        """Whether somebody who was shown something may have to stop seeing it."""
        return bool(self.lost) or self.lost_admin or self.active_changed


def compare(old: Grants, new: Grants, before: float, now: float) -> Change:
    """What changed for a user between `old` as it was at `before` and `new` at `now`.

    Times count because trash times pass without any row (docs/facts/arvados.md 1, Revocations).
    """
    lost, gained = [], []
    for uuid in _candidates(old, before, new, now):
        # Where the owner itself became readable, only the other side knows it by this name.
        was_in = old.owner_of.get(uuid) or new.owner_of.get(uuid, "")
        is_in = new.owner_of.get(uuid) or was_in
        had, has = _standing(old, uuid, was_in, before), _standing(new, uuid, is_in, now)
        if had & ~has:
            lost.append(uuid)
        if has & ~had:
            gained.append(uuid)
    return Change(
        new.user_uuid,
        new.generation,
        tuple(lost),
        tuple(gained),
        lost_admin=old.is_admin and not new.is_admin,
        gained_admin=new.is_admin and not old.is_admin,
        active_changed=old.is_active != new.is_active,
    )


def merged(changes: Sequence[Change], *, unsure: bool = False) -> Change:
    """Changes to the same grants from several earlier ones, as one; `unsure`: and from others."""
    last = changes[-1]
    return Change(
        last.user_uuid,
        last.generation,
        tuple(dict.fromkeys(uuid for change in changes for uuid in change.lost)),
        tuple(dict.fromkeys(uuid for change in changes for uuid in change.gained)),
        lost_admin=any(change.lost_admin for change in changes),
        gained_admin=any(change.gained_admin for change in changes),
        active_changed=unsure or any(change.active_changed for change in changes),
    )


def _standing(grants: Grants, uuid: str, owner: str, now: float) -> int:
    """The bits of a target with four more: it, and its owner, out of the trash and not frozen."""
    bits = grants.targets.get(uuid, 0)
    if not bits and not grants.is_admin:
        return 0
    cluster = grants.cluster
    trashed = cluster.is_trashed(uuid, now), cluster.is_trashed(owner, now)
    flags = *trashed, uuid in cluster.frozen, owner in cluster.frozen
    return bits | sum(1 << place for place, bad in enumerate(flags, start=8) if not bad)


def _candidates(old: Grants, before: float, new: Grants, now: float) -> set[str]:
    """Uuids whose standing may differ: few, where the two share most of their values."""
    moved = _moved_groups(old.cluster, before, new.cluster, now)
    if old.is_admin or new.is_admin:
        found = set(moved)
    else:
        found = {uuid for uuid in moved if uuid in old.targets or uuid in new.targets}
    if old.targets is not new.targets:
        found.update(uuid for uuid, _ in old.targets.items() ^ new.targets.items())
    if old.owner_of is not new.owner_of:
        found.update(uuid for uuid, _ in old.owner_of.items() ^ new.owner_of.items())
    if moved:
        for owner_of in (old.owner_of, new.owner_of):
            found.update(uuid for uuid, owner in owner_of.items() if owner in moved)
    return found


def _moved_groups(
    old: ClusterState, before: float, new: ClusterState, now: float
) -> frozenset[str]:
    """Groups that went in or out of the trash, or were frozen or thawed, on the way."""
    moved = {group for group, at in new.trashed.items() if before < at <= now}
    if old is not new:
        moved.update(group for group, _ in old.trashed.items() ^ new.trashed.items())
        moved |= old.frozen ^ new.frozen
    return frozenset(moved)
