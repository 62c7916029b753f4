# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the read rule must know about one object, and how a database row or API record gives it.

Pure. Nothing here decides; see `permissions.decide`. A fact that a record does not carry is None,
and the rule then answers `ASK` where its answer depends on it, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from arvados_nats.contract.places import GROUP_INFIX, Place
from arvados_nats.contract.subjects import kind_of
from arvados_nats.errors import BadInput

ROLE = "role"
PERMISSION = "permission"


class ObjectFacts(msgspec.Struct, frozen=True, gc=False):
    """One object as the rule sees it; fields beyond the first three belong to some kinds only.

    `places` are the groups among the owners that are named, where the object is known to be
    (`share_points`). `requests` lists (uuid, owner_uuid) of the container requests that point to a
    container, or whose container a log row is about. Times are seconds since 1970.
    """

    kind: str
    uuid: str
    owner_uuid: str
    trash_at: float | None = None
    """Groups and collections: their own trash time. None: not trashed."""
    is_role: bool | None = None
    is_active: bool | None = None
    is_merged: bool | None = None
    """Users: merged into another one."""
    is_permission: bool | None = None
    """Links: of class permission."""
    tail_uuid: str | None = None
    head_uuid: str | None = None
    head_owner_uuid: str | None = None
    """Permission links: owner of the head; empty when the head is gone."""
    object_uuid: str | None = None
    object_owner_uuid: str | None = None
    requests: tuple[tuple[str, str], ...] | None = None
    collection_uuid: str | None = None
    """Workflows: the collection that they are linked to and readable with, from which trash_at is
    then as well; empty without one."""
    collection_owner_uuid: str | None = None
    seen_by: tuple[str, ...] | None = None
    """Users: to whom permission links show them, roles and users."""
    places: tuple[Place, ...] = ()

    def owners(self) -> Iterator[str]:
        """The groups among the owners that the rule may look at."""
        named = [self.owner_uuid, self.head_owner_uuid or "", self.collection_owner_uuid or ""]
        named += [owner for _, owner in self.requests or ()]
        return (uuid for uuid in named if uuid[5:12] == GROUP_INFIX)


def timestamp(value: str | datetime | None) -> float | None:
    """Seconds since 1970 of an Arvados time, ISO text or a database value; UTC without a zone.

    Raises BadInput when the text is no time.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise BadInput(f"not a time: {value!r}") from error
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value.timestamp()


def facts_of(
    record: Mapping[str, Any],
    *,
    requests: tuple[tuple[str, str], ...] | None = None,
    head_owner_uuid: str | None = None,
) -> ObjectFacts:
    """The facts that a row or an API record (uuid, owner_uuid, ...) carries.

    `requests` and `head_owner_uuid` stand in other rows and are handed in. Raises BadInput when the
    uuid is of no known kind.
    """
    uuid = record["uuid"]
    kind = kind_of(uuid)
    if kind is None:
        raise BadInput(f"no known kind of object: {uuid!r}")
    known = _OF_KIND.get(kind.name)
    return ObjectFacts(
        kind.name,
        uuid,
        record["owner_uuid"] or "",
        requests=requests,
        head_owner_uuid=head_owner_uuid,
        **(known(record) if known else {}),
    )


def _collection(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"trash_at": timestamp(record.get("trash_at"))}


def _group(record: Mapping[str, Any]) -> dict[str, Any]:
    group_class = record.get("group_class")
    return {
        "trash_at": timestamp(record.get("trash_at")),
        "is_role": None if group_class is None else group_class == ROLE,
    }


def _user(record: Mapping[str, Any]) -> dict[str, Any]:
    merged = "redirect_to_user_uuid" in record
    return {
        "is_active": record.get("is_active"),
        "is_merged": bool(record["redirect_to_user_uuid"]) if merged else None,
    }


def _link(record: Mapping[str, Any]) -> dict[str, Any]:
    link_class = record.get("link_class")
    return {
        "is_permission": None if link_class is None else link_class == PERMISSION,
        "tail_uuid": record.get("tail_uuid"),
        "head_uuid": record.get("head_uuid"),
    }


def _log(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object_uuid": record.get("object_uuid"),
        "object_owner_uuid": record.get("object_owner_uuid"),
    }


def _workflow(record: Mapping[str, Any]) -> dict[str, Any]:
    if "collection_uuid" not in record:
        return {}
    return {
        "collection_uuid": record["collection_uuid"] or "",
        "collection_owner_uuid": record.get("collection_owner_uuid"),
        "trash_at": timestamp(record.get("collection_trash_at")),
    }


_OF_KIND = {
    "collection": _collection,
    "group": _group,
    "user": _user,
    "link": _link,
    "log": _log,
    "workflow": _workflow,
}
