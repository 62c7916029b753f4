# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""An object as the API shows it: which keys, in which order, and the computed ones."""

from __future__ import annotations

from typing import Any

from arvados_nats.contract.subjects import kind_of
from sandbox import ages
from sandbox.model import records
from sandbox.model.kinds import users
from sandbox.model.records import Record, Row
from sandbox.model.writer import Writer

_COMMON = ("owner_uuid", "created_at", "modified_by_user_uuid", "modified_at")
_OWN: dict[str, tuple[str, ...]] = {
    "user": (
        "email", "username", "full_name", "first_name", "last_name", "identity_url", "is_active",
        "is_admin", "is_invited", "prefs", "writable_by", "can_write", "can_manage",
    ),
    "group": (
        "name", "group_class", "description", "writable_by", "delete_at", "trash_at",
        "is_trashed", "properties", "frozen_by_uuid", "can_write", "can_manage",
    ),
    "collection": (
        "name", "description", "properties", "portable_data_hash", "manifest_text",
        "replication_desired", "replication_confirmed", "replication_confirmed_at",
        "storage_classes_desired", "storage_classes_confirmed", "storage_classes_confirmed_at",
        "delete_at", "trash_at", "is_trashed", "version", "current_version_uuid",
        "preserve_version", "file_count", "file_size_total",
    ),
    "container_request": (
        "command", "container_count", "container_count_max", "container_image", "container_uuid",
        "cwd", "description", "environment", "expires_at", "filters", "log_uuid", "mounts",
        "name", "output_name", "output_path", "output_glob", "output_uuid", "output_ttl",
        "priority", "properties", "requesting_container_uuid", "runtime_constraints",
        "scheduling_parameters", "state", "use_existing", "output_storage_classes",
        "output_properties", "cumulative_cost", "service", "published_ports",
    ),
    "container": (
        "command", "container_image", "cwd", "environment", "exit_code", "finished_at",
        "locked_by_uuid", "log", "mounts", "output", "output_path", "output_glob", "priority",
        "progress", "runtime_constraints", "runtime_status", "started_at", "state", "auth_uuid",
        "scheduling_parameters", "runtime_user_uuid", "runtime_auth_scopes", "lock_count",
        "gateway_address", "interactive_session_started", "output_storage_classes",
        "output_properties", "cost", "subrequests_cost", "service", "published_ports",
    ),
    "link": (
        "tail_uuid", "link_class", "name", "head_uuid", "head_kind", "tail_kind", "properties",
    ),
    "workflow": ("name", "description", "definition", "collection_uuid"),
    "log": (
        "id", "object_uuid", "object_owner_uuid", "object_kind", "event_at", "event_type",
        "summary", "properties",
    ),
    "api_client_authorization": (
        "api_token", "created_by_ip_address", "expires_at", "last_used_at",
        "last_used_by_ip_address", "scopes",
    ),
    "authorized_key": ("name", "key_type", "authorized_user_uuid", "public_key", "expires_at"),
    "virtual_machine": ("hostname",),
    "credential": (
        "name", "description", "credential_class", "scopes", "external_id", "expires_at",
    ),
}  # fmt: skip
_GRANTS = (
    "SELECT tail_uuid FROM links WHERE link_class = 'permission' AND head_uuid = $1"
    " AND name IN ('can_write', 'can_manage') ORDER BY id"
)


def keys(kind: str) -> tuple[str, ...]:
    """The keys of an object of this kind, in the order of Arvados' answers."""
    return ("kind", "etag", "uuid", *_COMMON, *_OWN[kind])


async def to_api(unit: Writer, record: Record) -> Row:
    """The object as JSON for `unit.actor`."""
    row = {**record.row, **_computed(record), **await _asked(unit, record)}
    listed = keys(record.kind.name)
    shown = {key: row.get(key) for key in listed if key in row or key not in ages.NEWER_COLUMNS}
    if record.kind.name == "api_client_authorization":
        shown |= {"modified_by_user_uuid": None, "modified_at": None}
    return records.in_json(shown)


def _computed(record: Record) -> Row:
    kind = record.kind.name
    found: Row = {"kind": record.kind.arvados, "etag": records.etag(record.row)}
    if kind == "collection":
        found["name"] = record["name"] or ""
    elif kind == "user":
        found["full_name"] = users.names(record.row)
    elif kind == "link":
        found["head_kind"] = _kind(record["head_uuid"])
        found["tail_kind"] = _kind(record["tail_uuid"])
    elif kind == "log":
        found["object_kind"] = _kind(record["object_uuid"])
    return found


def _kind(uuid: str | None) -> str | None:
    kind = kind_of(uuid)
    return kind.arvados if kind else None


async def _asked(unit: Writer, record: Record) -> Row:
    kind = record.kind.name
    if kind == "api_client_authorization":
        query = "SELECT uuid FROM users WHERE id = $1"
        return {"owner_uuid": await unit.connection.fetchval(query, record["user_id"])}
    if kind not in ("user", "group"):
        return {}
    owner = record["owner_uuid"]
    found: dict[str, Any] = {
        "can_write": await unit.can("write", record.uuid, owner),
        "can_manage": await unit.can("manage", record.uuid, owner),
    }
    found["writable_by"] = await _writable_by(unit, record, manages=found["can_manage"])
    if kind == "user":
        found["is_invited"] = await users.is_invited(unit, record)
    return found


async def _writable_by(unit: Writer, record: Record, *, manages: bool) -> list[str]:
    owner = record["owner_uuid"]
    if not manages:
        return [uuid for uuid in (record.uuid, owner) if await unit.can("write", uuid)]
    tails = [row[0] for row in await unit.connection.fetch(_GRANTS, record.uuid)]
    return [owner, unit.actor.uuid, *dict.fromkeys(tails)]
