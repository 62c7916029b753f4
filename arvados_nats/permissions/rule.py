# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The read rule: may the holder of this token read this object?

Pure, and the only place that decides. Every delivery of every service comes through `decide`
or through subjects derived from the same `Grants` (`grant_subjects`). The rule is
docs/facts/permission-rule.md, line by line; it agrees with recorded answers of a real Arvados in
every cell (tests/golden/permissions.json) and is never looser. Where a fact is missing the answer
is `ASK`: read the object from Arvados with this token.

Events are judged with `include_trash`, as arvados-ws does; snapshots and container logs without.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import msgspec

from arvados_nats.contract.subjects import KIND_OF_NAME
from arvados_nats.permissions.grants import DIRECT, MANAGES, MANAGES_OWNED, OWN_ROW, OWNED, Grants
from arvados_nats.permissions.object_facts import ObjectFacts

ALL = "all"
MAX_SCOPES = 4096
"""Bytes of all scopes of a token that is let in: each is looked at for each event."""


class Decision(Enum):
    """What the rule says about one object and one token."""

    YES = "yes"
    NO = "no"
    ASK = "ask"


_YES, _NO, _ASK = Decision.YES, Decision.NO, Decision.ASK


class Identity(msgspec.Struct, frozen=True):
    """Who holds a token, as Arvados said (`api_client_authorizations/current`).

    Whether they are an admin, and active, `Grants` say. `container_uuid` names the container whose
    runtime token this is. `expires_at` is in seconds since 1970.
    """

    token_uuid: str
    user_uuid: str
    is_root: bool = False
    """The SystemRootToken."""
    scopes: tuple[str, ...] = (ALL,)
    expires_at: float | None = None
    container_uuid: str | None = None


def scopes_allow(scopes: tuple[str, ...], method: str, path: str) -> bool:
    """Whether a token with these scopes may send this request (api_client_authorization.rb).

    A scope is `all`, an exact `"METHOD /path"`, or a prefix if it ends in a slash. HEAD is allowed
    where GET is.
    """
    asked = {f"{method} {path}", f"GET {path}" if method == "HEAD" else f"{method} {path}"}
    return any(
        scope == ALL
        or scope in asked
        or (scope.endswith("/") and any(line.startswith(scope) for line in asked))
        for scope in scopes
    )


def decide(
    identity: Identity,
    grants: Grants,
    facts: ObjectFacts,
    now: float,
    include_trash: bool = False,
) -> Decision:
    """Whether GET of the object with this token answers 200 at `now` (seconds since 1970).

    `grants` are those of `identity.user_uuid`; for the token of a merged user, those of the user it
    was merged into. `include_trash` is the question `GET ...?include_trash=true`.
    """
    if identity.expires_at is not None and identity.expires_at <= now:
        return _NO
    if ALL not in identity.scopes and not _in_scope(identity.scopes, facts):
        return _NO
    rule = _RULES.get(facts.kind)
    return rule(identity, grants, facts, now, include_trash) if rule else _ASK


def _in_scope(scopes: tuple[str, ...], facts: ObjectFacts) -> bool:
    kind = KIND_OF_NAME.get(facts.kind)
    return kind is not None and scopes_allow(scopes, "GET", f"/arvados/v1/{kind.path}/{facts.uuid}")


Rule = Callable[[Identity, Grants, ObjectFacts, float, bool], Decision]


def _shared(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    """(direct or owned) and not hidden, for kinds with no trash time of their own."""
    targets = grants.targets
    if not (
        targets.get(facts.owner_uuid, 0) & OWNED
        or targets.get(facts.uuid, 0) & DIRECT
        or grants.is_admin
    ):
        return _NO
    trash_at = grants.cluster.trashed.get(facts.owner_uuid)
    return _YES if trash_at is None or trash_at > now else _NO


def _collection(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    targets = grants.targets
    if not (
        targets.get(facts.owner_uuid, 0) & OWNED
        or targets.get(facts.uuid, 0) & DIRECT
        or grants.is_admin
    ):
        return _NO
    return _unless_hidden(grants, facts, now, include_trash)


def _workflow(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    """Like any object of its owner's, but one that is linked to a collection is readable exactly
    if that is (since Arvados 3.2)."""
    if facts.collection_uuid == "":
        return _shared(identity, grants, facts, now, include_trash)
    if not facts.collection_uuid or not facts.collection_owner_uuid:
        return _ASK
    linked = ObjectFacts(
        "collection", facts.collection_uuid, facts.collection_owner_uuid, facts.trash_at
    )
    found = _collection(identity, grants, linked, now, False)
    if found is _NO and include_trash:
        lifted = _collection(identity, grants, linked, now, True)
        return _ASK if lifted is _YES else _NO
    return found


def _group(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    """A direct target, or a role group that every active user may see; no ownership."""
    if grants.targets.get(facts.uuid, 0) & DIRECT or grants.is_admin:
        return _unless_hidden(grants, facts, now, include_trash)
    visible = grants.cluster.role_groups_visible
    if visible is False or not grants.is_active or facts.is_role is False:
        return _NO
    if visible is None or facts.is_role is None:
        return _ASK
    return _unless_hidden(grants, facts, now, include_trash)


def _unless_hidden(grants: Grants, facts: ObjectFacts, now: float, include_trash: bool) -> Decision:
    """Groups and collections: include_trash lifts the trash, but not in a frozen owner."""
    cluster = grants.cluster
    if include_trash and (grants.is_admin or facts.owner_uuid not in cluster.frozen):
        return _YES
    trash_at = cluster.trashed.get(facts.owner_uuid)
    if trash_at is not None and trash_at <= now:
        return _NO
    return _NO if facts.trash_at is not None and facts.trash_at <= now else _YES


def _user(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    shared = _shared(identity, grants, facts, now, include_trash)
    if shared is _NO or facts.is_merged:
        return _NO
    if facts.is_merged is None:
        return _ASK
    if facts.uuid == grants.user_uuid or grants.is_admin or facts.is_active:
        return _YES
    return _ASK if facts.is_active is None else _NO


def _container(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    """Readable through a container request, which include_trash does not help."""
    if grants.is_admin:
        return _YES
    if facts.requests is None:
        return _ASK
    targets, cluster = grants.targets, grants.cluster
    for uuid, owner in facts.requests:
        if targets.get(owner, 0) & OWNED or targets.get(uuid, 0) & DIRECT:
            trash_at = cluster.trashed.get(owner)
            if trash_at is None or trash_at > now:
                return _YES
    return _NO


def _link(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    """Permission links follow their ends, whatever is in the trash; other links are shared."""
    if facts.is_permission is None:
        return _ASK
    if not facts.is_permission:
        return _shared(identity, grants, facts, now, include_trash)
    me, head = grants.user_uuid, facts.head_uuid
    if grants.is_admin or facts.tail_uuid == me or head == me:
        return _YES
    if head is None:
        return _NO
    if grants.targets.get(head, 0) & MANAGES:
        return _YES
    if facts.head_owner_uuid is None:
        return _ASK
    return _YES if grants.targets.get(facts.head_owner_uuid, 0) & MANAGES_OWNED else _NO


def _log(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    """GET of a log row. Looser than the object it is about: never the permission of an event."""
    if grants.is_admin:
        return _YES
    named = [facts.object_uuid, facts.owner_uuid, facts.object_owner_uuid]
    for request in facts.requests or ():
        named += request
    if any(grants.targets.get(uuid, 0) & OWN_ROW for uuid in named if uuid):
        return _YES
    return _ASK if facts.requests is None else _NO


def _token(
    identity: Identity, grants: Grants, facts: ObjectFacts, now: float, include_trash: bool
) -> Decision:
    """Own tokens only, for admins too; the SystemRootToken reads all."""
    return _YES if identity.is_root or facts.owner_uuid == grants.user_uuid else _NO


_RULES: dict[str, Rule] = {
    "collection": _collection,
    "container_request": _shared,
    "workflow": _workflow,
    "credential": _shared,
    "authorized_key": _shared,
    "virtual_machine": _shared,
    "group": _group,
    "user": _user,
    "container": _container,
    "link": _link,
    "log": _log,
    "api_client_authorization": _token,
}
