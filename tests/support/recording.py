# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Replay of tests/golden/api.json against another API server, and what differs.

Uuids and secrets are those of the recorded run: each is mapped to what the other server answers
in its place. Times near the recording are moved to now. What is compared: status, sets of keys,
JSON types, order of items, and the values of the fields that the recording's description names.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx

VALUES = {
    "kind", "state", "lock_count", "exit_code", "output", "log", "is_trashed", "group_class",
    "link_class", "name", "perm_level", "items_available", "offset", "limit", "version",
    "container_count", "cost", "progress", "runtime_status",
}  # fmt: skip
UNORDERED = {
    "computed_permissions.list", "computed_permissions.page2", "computed_permissions.target",
    "computed_permissions.select", "containers.list.user", "dispatch.poll.mine",
    "cr.list.by_container", "collections.provenance",
}  # fmt: skip
BY_CHANCE = {
    "computed_permissions.list", "computed_permissions.page2", "list.count_none", "list.order_bad",
}  # fmt: skip
"""A page of rows in the order of random uuids: which rows it has is chance."""
RECORDED_AT = datetime(2026, 11, 25, 1, 43, 5, tzinfo=UTC)

_UUID = re.compile(r"[a-z0-9]{5}-[a-z0-9]{5}-[a-z0-9]{15}")
_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_SEEN_TOGETHER = re.compile(r"uuid|api_token|head_uuid")


@dataclass
class Recording:
    """The recorded exchanges and the map from recorded to answered strings."""

    data: dict[str, Any]
    known: dict[str, str] = field(default_factory=dict)
    log_shift: int = 0
    shift: timedelta = field(default_factory=lambda: datetime.now(UTC) - RECORDED_AT)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read the file."""
        return cls(json.loads(path.read_text(encoding="utf-8")))

    async def replay(self, client: httpx.AsyncClient) -> dict[str, list[str]]:
        """Send everything in order; exchange name -> what differs (empty: agrees)."""
        for request in self.data["fixtures"]:
            await self._make(client, request["token"], request, request.get("response_uuid"))
        found = {}
        for exchange in self.data["exchanges"]:
            for earlier in exchange.get("before", ()):
                uuid = self.data["names"][earlier["name_of_result"]]
                await self._make(client, earlier["as"], earlier["request"], uuid)
            answer = await self._send(client, exchange)
            found[exchange["name"]] = self.differences(exchange, answer)
        return found

    async def _make(
        self, client: httpx.AsyncClient, label: str, request: dict[str, Any], uuid: str | None
    ) -> None:
        answer = await client.request(
            request["method"],
            self.mapped(request["path"]),
            headers={"Authorization": f"Bearer {self.token(label)}"},
            json=self.mapped(request.get("body", request.get("json"))),
        )
        assert answer.status_code == 200, (request, answer.text)
        if uuid:
            self._learn(uuid, answer.json()["uuid"])

    async def _send(self, client: httpx.AsyncClient, exchange: dict[str, Any]) -> httpx.Response:
        request = exchange["request"]
        headers = {
            name: re.sub(r"\{token:(\w+)\}", lambda match: self.token(match[1]), value)
            for name, value in request.get("headers", {}).items()
        }
        if exchange["as"] and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.token(exchange['as'])}"
        path = self.mapped(request["path"])
        if request.get("query"):
            path += "?" + urlencode(self._query(request["query"]), quote_via=quote)
        content = None
        if "json" in request:
            content = json.dumps(self.mapped(request["json"]))
        elif "form" in request:
            content = urlencode(self.mapped(request["form"]))
        elif "text" in request:
            content = self.mapped(request["text"])
        return await client.request(request["method"], path, headers=headers, content=content)

    def _query(self, recorded: dict[str, str]) -> dict[str, str]:
        """A recorded query; ids of log rows differ by those that refused writes used up."""
        query: dict[str, str] = self.mapped(recorded)
        if self.log_shift and "filters" in query:
            moved = re.sub(
                r'(?<=\["id",">",")\d{3}(?="\])',
                lambda match: str(int(match[0]) + self.log_shift),
                query["filters"],
            )
            query["filters"] = moved
        return query

    def token(self, label: str) -> str:
        """The token of a label, as the server under test knows it."""
        return str(self.mapped(self.data["tokens"][label]))

    def mapped(self, value: Any) -> Any:
        """A recorded value with the strings of the server under test in it."""
        text = json.dumps(value)
        for recorded, answered in self.known.items():
            text = text.replace(recorded, answered)
        return json.loads(_TIME.sub(self._moved, text))

    def _moved(self, match: re.Match[str]) -> str:
        time = datetime.fromisoformat(match[0])
        if abs(time - RECORDED_AT) > timedelta(days=1):
            return match[0]
        return (time + self.shift).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _learn(self, recorded: str, answered: str) -> None:
        if recorded == answered or recorded in self.known:
            return
        self.known[recorded] = answered
        if _UUID.fullmatch(recorded):
            self.known[recorded[-15:]] = answered[-15:]

    def differences(self, exchange: dict[str, Any], answer: httpx.Response) -> list[str]:
        """What differs between a recorded exchange and an answer."""
        recorded = exchange["response"]
        if answer.status_code != recorded["status"]:
            return [f"status {answer.status_code}, recorded {recorded['status']}: {answer.text}"]
        found = self._header_differences(recorded["headers"], answer)
        if recorded["body"] is None:
            return found + ([f"a body: {answer.text}"] if answer.content else [])
        if exchange["name"] == "discovery":
            return found
        body = answer.json()
        expected = recorded["body"]
        if exchange["name"] in UNORDERED:
            expected, body = self._sorted(expected), self._sorted(body)
        elif "items" not in expected or exchange["name"] == "users.setup":
            self._learn_from(expected, body)
        return found + list(self._compare(expected, body, exchange["name"]))

    def _header_differences(self, recorded: dict[str, str], answer: httpx.Response) -> list[str]:
        masked = {"Etag", "X-Request-Id", "Cache-Control"}
        return [
            f"header {name}: {answer.headers.get(name)}, recorded {value}"
            for name, value in recorded.items()
            if name not in masked and answer.headers.get(name) != value
        ]

    def _sorted(self, body: Any) -> Any:
        if "items" in body:
            items = sorted(body["items"], key=lambda item: self.mapped(json.dumps(item)))
            return {**body, "items": items}
        return dict(enumerate(body.values()))

    def _learn_from(self, recorded: Any, answered: Any) -> None:
        if isinstance(recorded, dict) and isinstance(answered, dict):
            if recorded.get("kind") == "arvados#log":
                self.log_shift = answered["id"] - recorded["id"]
            for key in recorded.keys() & answered.keys():
                one, other = recorded[key], answered[key]
                if isinstance(one, str) and isinstance(other, str) and _SEEN_TOGETHER.search(key):
                    self._learn(one, other)
                else:
                    self._learn_from(one, other)
        elif isinstance(recorded, list) and isinstance(answered, list):
            for one, other in zip(recorded, answered, strict=False):
                self._learn_from(one, other)

    def _compare(self, recorded: Any, answered: Any, path: str) -> Any:
        if _type(recorded) != _type(answered):
            yield f"{path}: {answered!r}, recorded {recorded!r}"
        elif isinstance(recorded, dict):
            yield from self._compare_objects(recorded, answered, path)
        elif isinstance(recorded, list):
            if len(recorded) != len(answered) and not path.endswith("writable_by"):
                yield f"{path}: {len(answered)} items, recorded {len(recorded)}"
            for index, (one, other) in enumerate(zip(recorded, answered, strict=False)):
                yield from self._compare(one, other, f"{path}[{index}]")

    def _compare_objects(self, recorded: Any, answered: Any, path: str) -> Any:
        if recorded.keys() != answered.keys():
            missing = sorted(recorded.keys() - answered.keys())
            added = sorted(answered.keys() - recorded.keys())
            yield f"{path}: keys missing {missing}, added {added}"
        for key in recorded.keys() & answered.keys():
            one, other = recorded[key], answered[key]
            chance = path.partition(".items")[0] in BY_CHANCE and ".items" in path
            by_value = key in VALUES and "properties" not in path and not chance
            if key == "priority" and recorded.get("kind") == "arvados#containerRequest":
                by_value = True
            if key == "uuid" and not chance and self.mapped(one) != other and one in self.known:
                yield f"{path}.{key}: {other!r}, recorded {one!r}"
            elif by_value and self.mapped(one) != other:
                yield f"{path}.{key}: {other!r}, recorded {one!r}"
            elif not by_value:
                yield from self._compare(one, other, f"{path}.{key}")


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__
