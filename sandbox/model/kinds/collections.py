# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Collections: manifests, portable data hashes, versions, trash (app/models/collection.rb)."""

from __future__ import annotations

import hashlib
import re

from sandbox.model import records
from sandbox.model.kinds import trash
from sandbox.model.records import Record
from sandbox.model.rules import Problems, Rules
from sandbox.model.writer import Writer

_LOCATOR = re.compile(r"[0-9a-f]{32}\+\d+(\+\S+)*")
_FILE = re.compile(r"(\d+):(\d+):(\S+)")
_SIGNATURE = re.compile(r"\+A[^+\s]*")
_VERSIONED = ("manifest_text", "description", "properties", "name")
_SYNCED = (
    "owner_uuid", "delete_at", "trash_at", "is_trashed", "replication_desired",
    "storage_classes_desired",
)  # fmt: skip
EMPTY = "d41d8cd98f00b204e9800998ecf8427e+0"


class CollectionRules(Rules):
    """app/models/collection.rb."""

    async def prepare(self, unit: Writer, record: Record) -> None:
        """Defaults, the manifest's derived columns, and trash times."""
        record["name"] = record["name"] or None
        record["manifest_text"] = _SIGNATURE.sub("", record["manifest_text"] or "")
        record["properties"] = record["properties"] or {}
        if record.is_new:
            record["uuid"] = record["uuid"] or unit.new_uuid(record.table)
            record["current_version_uuid"] = record["current_version_uuid"] or record.uuid
            record["version"] = record["version"] or 1
            record["preserve_version"] = bool(record["preserve_version"])
            record["storage_classes_desired"] = record["storage_classes_desired"] or ["default"]
            record["storage_classes_confirmed"] = record["storage_classes_confirmed"] or []
        trash.prepare(unit, record)

    async def validate(self, unit: Writer, record: Record, problems: Problems) -> None:
        """The manifest must be one, and its hash must fit."""
        text = record["manifest_text"]
        wrong = manifest_error(text)
        if wrong:
            problems.add("manifest_text", wrong)
            return
        if record.is_new or record.changed("manifest_text", "portable_data_hash"):
            _derive(record, problems)
        trash.validate(record, problems)
        if record["name"] and "/" in record["name"]:
            problems.add("name", "cannot contain a '/' character")
        elif record["name"] in (".", ".."):
            problems.add("name", "cannot be '.' or '..'")
        if not record.is_new and record["current_version_uuid"] != record.uuid:
            problems.add("base", "past versions cannot be updated")

    def stamps(self, unit: Writer, record: Record) -> bool:
        """preserve_version alone is no modification."""
        return record.is_new or bool(set(record.changes()) - {"updated_at", "preserve_version"})

    def logs_update(self, record: Record) -> bool:
        """preserve_version alone is not logged."""
        changes = set(record.changes())
        return not changes or bool(changes - {"preserve_version", "updated_at"})

    async def before_write(self, unit: Writer, record: Record) -> None:
        """Keep the old content as a past version where it must be kept."""
        if record.is_new or record.was is None:
            return
        if _keeps_version(unit, record):
            record["version"] = record.was["version"] + 1

    async def before_log(self, unit: Writer, record: Record) -> None:
        """What all versions share changes in the old ones, silently; then the newest of them."""
        if record.was is None:
            return
        await _sync_past_versions(unit, record)
        if record.changed("version"):
            past = _past_version(unit, record)
            with unit.acting_as(unit.system), unit.leaving_modified_by():
                await unit.insert_logged(past)


def _derive(record: Record, problems: Problems) -> None:
    text = record["manifest_text"]
    computed = data_hash(text)
    given = record["portable_data_hash"]
    if given and record.changed("portable_data_hash") and given[:32] != computed[:32]:
        problems.add("portable_data_hash", f"'{given}' does not match computed hash '{computed}'")
        return
    record["portable_data_hash"] = computed
    files = manifest_files(text)
    record["file_count"] = len(files)
    record["file_size_total"] = sum(size for size, _ in files)
    record["file_names"] = file_names(text)


def _keeps_version(unit: Writer, record: Record) -> bool:
    if not (unit.config.collection_versioning and record.changed(*_VERSIONED)):
        return False
    if record["is_trashed"] or record.was is None:
        return False
    idle = unit.config.preserve_version_if_idle
    if record.was["preserve_version"] or record["preserve_version"] or not idle:
        return True
    return idle.total_seconds() > 0 and record.was["modified_at"] <= records.now() - idle


def _past_version(unit: Writer, record: Record) -> Record:
    was = dict(record.was or {})
    past = Record(record.table, {**was, "uuid": unit.new_uuid(record.table)})
    past.row.update({column: record[column] for column in _SYNCED})
    past.row["id"] = None
    return past


async def _sync_past_versions(unit: Writer, record: Record) -> None:
    """What all versions share changes in the old ones too, without log rows."""
    changed = [column for column in _SYNCED if record.changed(column)]
    if changed and record.was is not None:
        sets = ", ".join(f"{column} = ${n}" for n, column in enumerate(changed, 2))
        await unit.connection.execute(
            f"UPDATE collections SET {sets} WHERE current_version_uuid = $1 AND uuid <> $1",
            record.uuid,
            *(record[column] for column in changed),
        )


def data_hash(manifest: str) -> str:
    """The portable data hash of a manifest."""
    text = manifest.encode()
    return f"{hashlib.md5(text, usedforsecurity=False).hexdigest()}+{len(text)}"


def manifest_files(manifest: str) -> list[tuple[int, str]]:
    """(size, path) of every file in it."""
    found = []
    for line in manifest.splitlines():
        stream, *tokens = line.split(" ")
        for token in tokens:
            match = _FILE.fullmatch(token)
            if match and not _LOCATOR.fullmatch(token):
                found.append((int(match[2]), f"{stream}/{match[3]}"))
    return found


def file_names(manifest: str) -> str:
    """The text that Arvados keeps for its search: each name, then each stream, on its line."""
    names = dict.fromkeys(match[3] for match in re.finditer(r" (\d+):(\d+):(\S+)", manifest))
    streams = dict.fromkeys(match[1] for match in re.finditer(r"(?m)^\./(\S+)", manifest))
    return "".join(f"{name}\n" for name in (*names, *streams)).replace("\\040", " ")


def manifest_error(manifest: str) -> str | None:
    """What is wrong with a manifest, as Arvados says it."""
    for number, line in enumerate(manifest.splitlines(), 1):
        stream, *tokens = line.split(" ")
        said = f"Manifest invalid for stream {number}:"
        if not re.fullmatch(r"\.(/\S+)*", stream):
            return f'{said} missing or invalid stream name "{stream}"'
        if not tokens or not _LOCATOR.fullmatch(tokens[0]):
            return f'{said} missing or invalid locator "{tokens[0] if tokens else ""}"'
        rest = [token for token in tokens if not _LOCATOR.fullmatch(token)]
        bad = next((token for token in rest if not _FILE.fullmatch(token)), None)
        if bad is not None or not rest:
            return f'{said} invalid file token "{bad or ""}"'
    return None


def with_logs_of(container_uuid: str, old: str, new: str) -> str:
    """A request's log manifest with a container's log on top and in a folder of its own."""
    top = {line.split(" ")[0] for line in new.splitlines()}
    kept = "".join(f"{line}\n" for line in old.splitlines() if line.split(" ")[0] not in top)
    return _in_order(folder_of(container_uuid, kept, new), new)


def folder_of(container_uuid: str, old: str, new: str) -> str:
    """A request's log manifest with a container's log in a folder of its own."""
    folder = f"./log\\040for\\040container\\040{container_uuid}"
    own = "".join(
        f"{folder}{stream[1:]} {rest}\n"
        for stream, _, rest in (line.partition(" ") for line in new.splitlines())
    )
    kept = "".join(f"{line}\n" for line in old.splitlines() if line.split(" ")[0] != folder)
    return _in_order(kept, own)


def _in_order(one: str, other: str) -> str:
    return "".join(f"{line}\n" for line in sorted((*one.splitlines(), *other.splitlines())))
