# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A recording of who could read what on a real Arvados, walked through step by step.

Pure. `Recording` is the file, `World` the recorded database after a step in the shape that
`permissions.decide` takes. `check_permissions` compares the two; the file's own `description`
explains every field. Nothing here knows a name or a cluster id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from arvados_nats.contract.subjects import OTHER, kind_of
from arvados_nats.permissions import grants as grants_of
from arvados_nats.permissions.grants import ClusterState, Grants, PermissionRow, PermissionRows
from arvados_nats.permissions.object_facts import ObjectFacts, facts_of, timestamp
from arvados_nats.permissions.rule import ALL, Identity

ROOT_LABEL = "root"
PLAIN, WITH_TRASH = "readable", "readable_include_trash"
_OTHER_STATUS_PREFIX = {PLAIN: "", WITH_TRASH: "trash_"}
_FORBIDDEN = "403"
_TRASHABLE = frozenset({"collection", "group"})


class Recording(msgspec.Struct, frozen=True):
    """The parts of a recording that matter here; its own `description` explains each."""

    matrix_user_uuid: dict[str, str]
    objects: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    config: dict[str, Any] = {}
    token_strings: dict[str, str] = {}
    stale_cells: list[dict[str, Any]] = []
    tokens: list[dict[str, Any]] = []
    setup: dict[str, Any] = {}


class World:
    """The state of the recorded database after a step, in the shape that the rule takes."""

    def __init__(self, recording: Recording) -> None:
        self.now = 0.0
        self._recording = recording
        self._scopes = _token_scopes(recording)
        self._index = {
            found["uuid"]: index
            for index, found in enumerate(recording.objects)
            # The server made these links itself and they were asked for some users only.
            if not (found.get("type") == "links" and found.get("name") is None)
        }
        self._records: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, dict[str, PermissionRow]] = defaultdict(dict)
        self._grouped: dict[str, list[PermissionRows]] = {}
        self._grants: dict[str, Grants] = {}
        self._cluster = ClusterState()
        self._asked: dict[str, list[tuple[int, ObjectFacts]]] = {}

    def advance(self, step: dict[str, Any]) -> None:
        """Apply the differences of one step."""
        self.now = timestamp(step["time"]) or 0.0
        self._records.update(step.get("records_changed") or {})
        for uuid in step.get("records_deleted") or ():
            self._records.pop(uuid, None)
        for row in (PermissionRow(*found[:4]) for found in step.get("permissions_set") or ()):
            self._rows[row.user_uuid][row.target_uuid] = row
        for user, target in step.get("permissions_removed") or ():
            self._rows[user].pop(target, None)
        self._cluster = ClusterState(
            {g: timestamp(at) or 0.0 for g, at in (step.get("trashed_groups") or {}).items()},
            frozenset(step.get("frozen_groups") or ()),
            _role_groups_visible(self._recording.config),
        )
        self._grouped = grants_of.grouped(
            row for rows in self._rows.values() for row in rows.values()
        )
        self._grants.clear()
        self._asked = self._facts()

    def reader(self, label: str) -> tuple[Identity, Grants]:
        """The identity of a label's token and the grants of the user it acts as."""
        user = self._merged_into(self._user_of(label))
        identity = Identity(
            _token_uuid(self._recording.token_strings.get(label, "")) or label,
            user,
            is_root=self._is_root(label),
            scopes=self._scopes_of(label) or (ALL,),
        )
        if user not in self._grants:
            self._grants[user] = self._grants_of(user)
        return identity, self._grants[user]

    def asked_about(self, question: str) -> list[tuple[int, ObjectFacts]]:
        """Index and facts of every object that the question was put for."""
        return self._asked[question]

    def unasked(
        self, step: dict[str, Any], label: str, question: str, identity: Identity
    ) -> set[int]:
        """Objects for which the answer was neither 200 nor 404 and says nothing about the rule.

        A 403 is a token's scope at work: a cell like any other when the scopes are recorded.
        """
        prefix = _OTHER_STATUS_PREFIX[question]
        answers = (step.get("other_status") or {}).get(label) or {}
        knows_scopes = self._scopes_of(label) is not None
        return {
            index
            for status, indexes in answers.items()
            if status.removeprefix(prefix).isdigit() and status.startswith(prefix)
            if not (knows_scopes and status.removeprefix(prefix) == _FORBIDDEN)
            for index in indexes
        }

    def _user_of(self, label: str) -> str:
        if user := self._recording.matrix_user_uuid.get(label):
            return user
        token = _token_uuid(self._recording.token_strings.get(label, "")) or ""
        owner: str = self._records[token]["owner_uuid"]
        return owner

    def _is_root(self, label: str) -> bool:
        token, root = self._recording.token_strings.get(label), self._recording.config
        return label == ROOT_LABEL or (token is not None and token == root.get("SystemRootToken"))

    def _scopes_of(self, label: str) -> tuple[str, ...] | None:
        token = self._recording.token_strings.get(label, "")
        record = self._records.get(_token_uuid(token) or "")
        if record and record.get("scopes") is not None:
            return tuple(record["scopes"])
        return self._scopes.get(token)

    def _merged_into(self, user: str) -> str:
        seen = {user}
        while target := self._records.get(user, {}).get("redirect_to_user_uuid"):
            if target in seen:
                break
            seen.add(target)
            user = target
        return user

    def _grants_of(self, user: str) -> Grants:
        record = self._records.get(user, {})
        return Grants(
            user,
            bool(record.get("is_admin")),
            bool(record.get("is_active")),
            grants_of.fold(user, self._grouped),
            cluster=self._cluster,
        )

    def _facts(self) -> dict[str, list[tuple[int, ObjectFacts]]]:
        requests: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for uuid, record in self._records.items():
            if record.get("container_uuid") and "-xvhdp-" in uuid:
                requests[record["container_uuid"]].append((uuid, record["owner_uuid"]))
        asked = [
            (index, self._facts_of(record, requests))
            for uuid, record in self._records.items()
            if (index := self._index.get(uuid)) is not None
        ]
        trashable = [(index, facts) for index, facts in asked if facts.kind in _TRASHABLE]
        return {PLAIN: asked, WITH_TRASH: trashable}

    def _facts_of(
        self, record: dict[str, Any], requests: dict[str, list[tuple[str, str]]]
    ) -> ObjectFacts:
        if kind_of(record["uuid"]) is None:
            return ObjectFacts(OTHER, record["uuid"], record.get("owner_uuid") or "")
        subject = record.get("object_uuid") or record["uuid"]
        head = self._records.get(record.get("head_uuid") or "", {})
        return facts_of(
            record,
            requests=tuple(requests.get(subject, ())),
            head_owner_uuid=head.get("owner_uuid") or "",
        )


def _token_uuid(token: str) -> str | None:
    parts = token.split("/")
    return parts[1] if len(parts) >= 3 and parts[0] == "v2" else None


def _role_groups_visible(config: dict[str, Any]) -> bool:
    users = config.get("Users")
    nested = users.get("RoleGroupsVisibleToAll", True) if isinstance(users, dict) else True
    return bool(config.get("Users.RoleGroupsVisibleToAll", nested))


def _token_scopes(recording: Recording) -> dict[str, tuple[str, ...]]:
    """Scopes of token strings, from the recorded answers about tokens and from their creation."""
    found: dict[str, tuple[str, ...]] = {}
    by_uuid = dict(_created_scopes(_all_requests(recording)))
    for token in recording.token_strings.values():
        if scopes := by_uuid.get(_token_uuid(token) or ""):
            found[token] = scopes
    for entry in recording.tokens:
        answer = entry.get("checks", {}).get("api_client_authorizations/current", {})
        body = answer.get("body")
        if isinstance(body, dict) and body.get("scopes") is not None:
            found[entry["token"]] = tuple(body["scopes"])
    return found


def _all_requests(recording: Recording) -> Iterator[dict[str, Any]]:
    yield from recording.setup.get("requests", ())
    for step in recording.steps:
        yield from step.get("requests", ())


def _created_scopes(requests: Iterable[dict[str, Any]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for request in requests:
        if "api_client_authorization" not in (request.get("path") or ""):
            continue
        body = request.get("body") or {}
        made = body.get("api_client_authorization") if isinstance(body, dict) else None
        if request.get("response_uuid") and isinstance(made, dict) and made.get("scopes"):
            yield request["response_uuid"], tuple(made["scopes"])
