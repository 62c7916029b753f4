# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which processes somebody means: uuids, names, or none for their newest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import subjects
from arvados_nats.errors import BadInput, Refused

_COLUMNS = "uuid name state container_uuid container_count created_at".split()
_MOST_NAMED = 2


@dataclass(frozen=True, slots=True)
class Process:
    """A container request, or a container that was named by its uuid."""

    uuid: str
    name: str = ""
    record: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """What tells it from others."""
        return self.name or self.uuid


def may_be_uuid(word: str) -> bool:
    """Whether this is the uuid of a container or container request; BadInput if of anything
    else."""
    kind = subjects.kind_of(word)
    if kind is None:
        return False
    if kind.name not in ("container", "container_request"):
        raise BadInput(f"{word} is not the uuid of a container or container request")
    return True


async def newest(
    arvados: Arvados, token: Token, filters: Sequence[Sequence[Any]], limit: int
) -> list[Process]:
    """Container requests, the newest first."""
    query = {
        "filters": [list(one) for one in filters],
        "select": _COLUMNS,
        "order": ["created_at desc"],
        "limit": limit,
        "count": "none",
    }
    items = (await arvados.get(token, "container_requests", query)).get("items")
    if not isinstance(items, list):
        raise BadInput("Arvados lists container requests without items")
    return [Process(str(item["uuid"]), str(item.get("name") or ""), item) for item in items]


async def mine(arvados: Arvados, token: Token, limit: int) -> list[Process]:
    """The newest processes that somebody began themselves, and no other process of theirs."""
    user = await arvados.current_user(token)
    own = [["modified_by_user_uuid", "=", user["uuid"]], ["requesting_container_uuid", "=", None]]
    return await newest(arvados, token, own, limit)


async def find(arvados: Arvados, token: Token, words: Sequence[str]) -> list[Process]:
    """The processes that these words mean, in their order; Refused if there is none."""
    if words:
        return [await _one(arvados, token, word) for word in words]
    found = await mine(arvados, token, 1)
    if not found:
        raise Refused("you have begun no process yet; name one by its uuid or its name")
    return found


async def _one(arvados: Arvados, token: Token, word: str) -> Process:
    if may_be_uuid(word):
        return Process(word)
    for condition in (["name", "=", word], ["name", "ilike", f"%{_escaped(word)}%"]):
        if found := await newest(arvados, token, [condition], _MOST_NAMED):
            return found[0]
    raise Refused(f"no container request that you can see is named {word!r}")


def _escaped(word: str) -> str:
    """A text in which no character stands for another."""
    return word.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
