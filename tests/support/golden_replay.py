# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Sends the recorded requests of golden/permissions.json to the pretend cluster.

Uuids are random on both sides. The map from recorded to ours grows with the answers to requests
and with the log rows, which tell of what the server made by itself; everything is then compared
in recorded uuids. Times that lie near the recording's own are moved to now.
"""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec

from sandbox.cluster import Cluster
from sandbox.model import records
from sandbox.model.actors import Actor
from sandbox.model.refusal import Refusal

Json = dict[str, Any]
SOON = timedelta(seconds=0.6)
_UUID = re.compile(r"zgold-[0-9a-z]{5}-[0-9a-z]{15}")
_SHORT = re.compile(r"\(([0-9a-z]{15})\)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
_MASKED = {"id", "user_id", "priority", "api_token"}
_ACTIONS = {"lock", "unlock", "trash", "untrash", "activate", "unsetup"}


class Replay:
    """One pretend cluster that follows the recording."""

    def __init__(self, cluster: Cluster, listener: asyncpg.Connection[Any], recording: Json):
        self.cluster = cluster
        self._listener = listener
        self._recording = recording
        self.ours: dict[str, str] = {}
        self.notified: asyncio.Queue[str] = asyncio.Queue()
        self._last_log = 0

    async def start(self) -> None:
        """Listen, and forget the rows of the cluster's own beginning."""
        await self._listener.add_listener("logs", lambda *told: self.notified.put_nowait(told[3]))
        await self.new_logs()
        empty = await self.cluster.pool.fetchval(
            "SELECT uuid FROM collections WHERE name = 'empty collection'"
        )
        for uuid, record in self._recording["steps"][0]["records_changed"].items():
            if record.get("name") == "empty collection":
                self.ours[uuid] = empty

    def translate(self, value: Any) -> Any:
        """Recorded uuids as ours."""
        return _replaced(value, self.ours)

    def recorded(self, value: Any) -> Any:
        """Our uuids as recorded."""
        return _replaced(value, {ours: theirs for theirs, ours in self.ours.items()})

    async def send(self, request: Json) -> None:
        """One recorded request; a refusal must be the recorded one."""
        if request.get("wait_seconds"):
            await asyncio.sleep(SOON.total_seconds())
        elif request.get("sql"):
            await self.cluster.pool.execute(self.translate(request["sql"]))
        else:
            await self._send(request)

    async def _send(self, request: Json) -> None:
        body = self.translate(_near_now(request.get("body") or {}))
        try:
            made = await self._call(request, self.translate(request["path"]), body)
        except Refusal as refusal:
            assert (refusal.status, list(refusal.messages)) == (
                request["status"],
                request.get("errors"),
            ), request
            return
        assert request["status"] in (200, 204), request
        if made and request.get("response_uuid"):
            self.ours.setdefault(request["response_uuid"], made)

    async def _call(self, request: Json, path: str, body: Json) -> str | None:
        cluster = self.cluster
        actor = await self.actor(request["token"])
        parts = path.split("/")[3:]
        if path == "/sys/trash_sweep":
            await cluster.trash_sweep(actor)
        elif path.endswith("/users/setup"):
            await cluster.setup_user(body["uuid"], actor)
        elif path.endswith("/users/merge"):
            await cluster.merge_users(
                body["old_user_uuid"],
                body["new_user_uuid"],
                actor,
                owner=body["new_owner_uuid"],
                redirect=body["redirect_to_new_user"],
            )
        elif len(parts) == 3 and parts[2] in _ACTIONS:
            name = parts[2] if parts[0] != "users" else f"{parts[2]}_user"
            await getattr(cluster, name)(parts[1], actor)
        elif request["method"] == "DELETE":
            await cluster.delete(parts[1], actor)
        elif request["method"] == "PUT":
            await cluster.update(parts[1], next(iter(body.values())), actor)
        elif request["method"] == "POST":
            return (await cluster.create(parts[0], next(iter(body.values())), actor)).uuid
        return None

    async def actor(self, label: str) -> Actor:
        """Who the recording calls so, by his own token."""
        token = self._recording["token_strings"][label]
        if label in ("root", "anonymous"):
            return await self.cluster.authenticate(token)
        uuid, container = self.translate(token).split("/")[1], token.split("/")[3:]
        secret = await self.cluster.pool.fetchval(
            "SELECT api_token FROM api_client_authorizations WHERE uuid = $1", uuid
        )
        parts = ["v2", uuid, secret or "gone", *(self.translate(c) for c in container)]
        return await self.cluster.authenticate("/".join(parts))

    async def new_logs(self) -> list[Json]:
        """The log rows since the last call, in the order of their ids."""
        rows = await self.cluster.pool.fetch(
            "SELECT * FROM logs WHERE id > $1 ORDER BY id", self._last_log
        )
        self._last_log = max([row["id"] for row in rows], default=self._last_log)
        return [
            {**row, "properties": msgspec.json.decode(row["properties"] or "null")} for row in rows
        ]

    def learn(self, logs: list[Json], wanted: list[Json]) -> None:
        """What the server made by itself stands at the same place in both lists of rows."""
        for ours, theirs in zip(logs, wanted, strict=False):
            self.ours[theirs["uuid"]] = ours["uuid"]
            if theirs["event_type"] == "create" and theirs["object_uuid"]:
                self.ours.setdefault(theirs["object_uuid"], ours["object_uuid"])

    async def told(self, count: int) -> list[str]:
        """The payloads of the channel since the last call, at least `count` of them."""
        async with asyncio.timeout(60):
            told = [await self.notified.get() for _ in range(count)]
        while not self.notified.empty():
            told.append(self.notified.get_nowait())
        return told

    async def permissions(self) -> set[tuple[str, str, int, bool]]:
        """Table materialized_permissions in recorded uuids."""
        rows = await self.cluster.pool.fetch("SELECT * FROM materialized_permissions")
        return set(self.recorded([tuple(row) for row in rows]))

    async def readable(self, label: str, *, include_trash: bool = False) -> set[str] | None:
        """What the token may GET, in recorded uuids; None if it is not accepted."""
        try:
            actor = await self.actor(label)
        except Refusal:
            return None
        kinds = ("group", "collection") if include_trash else tuple(self.cluster.tables)
        async with self.cluster.unit(actor) as unit:
            found = await unit.all_readable(*kinds, include_trash=include_trash)
        return set(self.recorded(list(found)))

    async def trashed(self) -> set[str]:
        """Table trashed_groups in recorded uuids."""
        rows = await self.cluster.pool.fetch("SELECT group_uuid FROM trashed_groups")
        return {self.recorded(row[0]) for row in rows}

    async def frozen(self) -> set[str]:
        """Table frozen_groups in recorded uuids."""
        rows = await self.cluster.pool.fetch("SELECT uuid FROM frozen_groups")
        return {self.recorded(row[0]) for row in rows}


def comparable(row: Json) -> Json:
    """A log row without what must differ: ids, etags, times and hashes of texts with uuids."""
    shown = {
        key: row[key]
        for key in ("event_type", "object_uuid", "owner_uuid", "object_owner_uuid", "summary")
    }
    properties = dict(row["properties"] or {})
    for key in ("old_etag", "new_etag"):
        if key in properties:
            properties[key] = properties[key] is not None
    for key in ("old_attributes", "new_attributes"):
        if properties.get(key):
            properties[key] = _masked(properties[key])
    return {**shown, "modified_by_user_uuid": row["modified_by_user_uuid"], **properties}


def _masked(attributes: Json) -> Json:
    masked = {k: _mask(k, v) for k, v in attributes.items()}
    if "log\\040for" in str(attributes.get("manifest_text")):
        masked["portable_data_hash"] = "of uuids"
    return masked


def _mask(key: str, value: Any) -> Any:
    if isinstance(value, str) and _TIME.fullmatch(value):
        return "a time"
    return "a number" if key in _MASKED and value else value


def _replaced(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        text = _UUID.sub(lambda m: names.get(m[0], m[0]), value)
        return _SHORT.sub(lambda m: f"({_last_part(m[1], names)})", text)
    if isinstance(value, dict):
        return {k: _replaced(v, names) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(v, names) for v in value)
    return value


def _last_part(short: str, names: dict[str, str]) -> str:
    """A uuid's last part, as it stands in names that were made unique."""
    return next((new[-15:] for old, new in names.items() if old[-15:] == short), short)


def _near_now(body: Json) -> Json:
    """A trash time lies shortly ahead, the end of a token shortly back."""
    moved: Json = {}
    for key, value in body.items():
        if isinstance(value, dict):
            moved[key] = _near_now(value)
        elif key == "trash_at":
            moved[key] = records.stamp(records.now() + SOON)
        elif key == "expires_at" and "credential_class" not in body:
            moved[key] = records.stamp(records.now() - SOON)
        else:
            moved[key] = value
    return moved
