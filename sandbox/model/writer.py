# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the rules of a kind see of the unit of work that they are part of."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.database import Connection
from sandbox.model.records import Record, Table


class Writer(Protocol):
    """One transaction that writes as `actor`; `unit_of_work.Unit` says what each does."""

    connection: Connection
    tables: Mapping[str, Table]
    config: ClusterConfig
    actor: Actor
    system: Actor
    ours: set[str]

    def acting_as(self, actor: Actor) -> AbstractContextManager[None]: ...

    def leaving_modified_by(self) -> AbstractContextManager[None]: ...

    async def where(
        self, kind: str, condition: str, *args: Any, **options: Any
    ) -> list[Record]: ...

    async def find(self, uuid: str | None, *, lock: bool = False) -> Record | None: ...

    async def readable(self, kind: str, uuid: str, *, include_trash: bool = False) -> bool: ...

    async def all_readable(self, *kinds: str, include_trash: bool = False) -> set[str]: ...

    async def may_refer_to(self, kind: str, uuid: str) -> bool: ...

    async def can(self, action: str, uuid: str, owner: str | None = None) -> bool: ...

    async def is_frozen(self, uuid: str, owner: str | None = None) -> bool: ...

    def new(self, kind: str, given: Mapping[str, Any]) -> Record: ...

    def new_uuid(self, table: Table) -> str: ...

    async def create(self, kind: str, given: Mapping[str, Any], **options: Any) -> Record: ...

    async def update(self, record: Record, **given: Any) -> Record: ...

    async def save(self, record: Record, *, unique_name: bool = False) -> None: ...

    async def insert_logged(self, record: Record) -> None: ...

    async def destroy(self, record: Record) -> None: ...
