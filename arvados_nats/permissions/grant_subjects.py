# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Grants as NATS subjects: what a user with a native NATS connection may subscribe to.

Pure. NATS compares subjects and knows no rule, so a pattern may be handed out only where the rule
says yes to every message that can appear below it. An event is told once below each share point
above its object (`share_points`), and only if nothing but the reader's rights is left to ask: in
the live tree are the kinds whose rule is owner and object alone, and what the trash hides from
everybody is not told (`publishers/live_audience`). So patterns follow from what was shared with
somebody, one for each share point, whatever happens to the projects below:

=====================  =============================================================
share point            pattern
=====================  =============================================================
opens what it owns     `arvados.live.<share>.>`
is readable by itself  `arvados.live.<share>.*.<share>.>`
=====================  =============================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.permissions.grants import DIRECT, OWNED, Grants
from arvados_nats.permissions.rule import ALL, Identity, scopes_allow

LOG = "log"
"""The branch of the live tree that holds container logs; the others are kinds of events."""

_BRANCHES = ("collection", "group", "container_request", "container", "workflow", LOG)
_BRANCHES_OF_OBJECT = {
    "collection": ("collection", "workflow"),
    "group": ("group",),
    "workflow": ("workflow",),
    "container_request": ("container_request", "container", LOG),
}
"""What can appear below `arvados.live.*.*.<object>` for an object of this kind."""

_PATHS_OF_BRANCH = {
    branch: (f"/arvados/v1/{subjects.KIND_OF_NAME[branch].path}/",)
    for branch in _BRANCHES
    if branch != LOG
} | {LOG: ("/arvados/v1/container_requests/", "/arvados/v1/containers/")}


OVERFLOW = (
    "more was shared with this user one by one than a NATS login can carry, so it hears nothing:"
    " read live through the WebSocket proxy, or ask (arvados.api); whoever shares can put the"
    " objects into one project and share that"
)
"""What somebody is told who has too many patterns."""


class Subscriptions(msgspec.Struct, frozen=True):
    """Patterns that a user may subscribe to, or how many there would have been.

    With `overflow` the list is empty: more was shared with the user than a NATS login can carry,
    and is to be served another way.
    """

    patterns: tuple[str, ...] = ()
    overflow: bool = False
    needed: int = 0


def subscriptions(identity: Identity, grants: Grants, limit: int) -> Subscriptions:
    """The live patterns of one token, at most `limit` of them.

    Admins get those of their own targets here, like anybody; that they read the streams instead
    is the callout's business. A scoped token gets the branches that its scopes cover.
    """
    patterns = list(_patterns(identity, grants))
    if len(patterns) > limit:
        return Subscriptions(overflow=True, needed=len(patterns))
    return Subscriptions(tuple(patterns), needed=len(patterns))


def _patterns(identity: Identity, grants: Grants) -> Iterator[str]:
    allowed = covered_branches(identity.scopes)
    for uuid, bits in grants.targets.items():
        kind = subjects.kind_of(uuid)
        if kind is None:
            continue
        if bits & OWNED:
            yield from _branch_patterns(f"{subjects.LIVE}.{uuid}", "*.*", _BRANCHES, allowed)
        elif bits & DIRECT and (branches := _BRANCHES_OF_OBJECT.get(kind.name)):
            prefix = f"{subjects.LIVE}.{uuid}.*.{uuid}"
            yield from _branch_patterns(prefix, "", branches, allowed)


def covered_branches(scopes: tuple[str, ...]) -> frozenset[str]:
    """The branches of the live tree whose every object these scopes may GET."""
    if ALL in scopes:
        return frozenset(_BRANCHES)
    return frozenset(
        branch
        for branch, paths in _PATHS_OF_BRANCH.items()
        if all(scopes_allow(scopes, "GET", path) for path in paths)
    )


def _branch_patterns(
    prefix: str, between: str, branches: tuple[str, ...], allowed: frozenset[str]
) -> Iterator[str]:
    if allowed.issuperset(branches):
        yield f"{prefix}.>"
        return
    start = f"{prefix}.{between}" if between else prefix
    for branch in branches:
        if branch in allowed:
            yield f"{start}.log.>" if branch == LOG else f"{start}.event.{branch}.>"


class Change(msgspec.Struct, frozen=True):
    """What one user can no longer, or can newly, read between two generations of grants.

    `lost` and `gained` hold the uuids of share points. A demoted admin has lost everything that no
    other right gives, which is not listed. What follows from where a project is, or from the
    trash, changes nobody's grants.
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


def compare(old: Grants, new: Grants) -> Change:
    """What changed for a user between `old` and `new`."""
    lost, gained = [], []
    moved = old.targets.items() ^ new.targets.items() if old.targets is not new.targets else ()
    for uuid in dict.fromkeys(uuid for uuid, _ in moved):
        had, has = old.targets.get(uuid, 0), new.targets.get(uuid, 0)
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
        active_changed=old.is_active != new.is_active
        or old.cluster.role_groups_visible != new.cluster.role_groups_visible,
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
