# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A live publisher beside an event publisher, and all that is shown below `arvados.live`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arvados_nats.contract import streams
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.nats.client import Message
from publishers.live import publisher as live
from publishers.live.cursor import Options
from publishers.postgres import database as postgres
from sandbox import raw_rows
from sandbox.raw_rows import new_uuid
from tests.support.background import background
from tests.support.waiting import until
from tests.support.worlds.events import EventWorld


class LiveWorld:
    """Events are published, and everything below `arvados.live` is heard."""

    def __init__(self, scene: EventWorld) -> None:
        self.scene = scene
        self.heard: list[Message] = []

    async def hear(self, message: Message) -> None:
        self.heard.append(message)

    def shown(self, uuid: str) -> list[str]:
        """Subjects, without `arvados.live.`, under which something about an object was heard."""
        return [
            message.subject.removeprefix("arvados.live.")
            for message in self.heard
            if f".{uuid}." in message.subject
        ]

    def places(self, tail: str) -> set[tuple[str, str]]:
        """(owner, object) pairs under which a subject with this ending was heard, of any share."""
        return {
            (subject.split(".")[3], subject.split(".")[4])
            for subject in (message.subject for message in self.heard)
            if subject.endswith(tail)
        }

    async def all_shown(self) -> None:
        """Wait until the live publisher has shown all that is in both streams, and forget it."""
        marker = new_uuid("4zz18")
        await self.scene.insert(
            raw_rows.row(marker, event_type="delete", object_owner_uuid=raw_rows.SYSTEM_USER)
        )
        container = await self._marker_container()
        await self.store(Chunk(container, "marker.txt", 0, 0, marker.encode()))

        async def seen() -> bool:
            data = [message.data for message in self.heard]
            return bool(self.shown(marker)) and marker.encode() in data

        await until(seen, "the markers behind everything else")

    async def _marker_container(self) -> str:
        """A container with a request of the system user; the clean-up of no test concerns it."""
        container, request = new_uuid("dz642"), new_uuid("xvhdp")
        await self.scene.admin.execute(
            "INSERT INTO container_requests (uuid, owner_uuid, container_uuid, created_at,"
            " updated_at, modified_at) VALUES ($1, $2, $3, now(), now(), now())",
            request,
            raw_rows.SYSTEM_USER,
            container,
        )
        return container

    async def store(self, *chunks: Chunk | ContainerEnd) -> None:
        """Put bytes of logs into their stream, as the container log publisher does."""
        for chunk in chunks:
            data = chunk.data if isinstance(chunk, Chunk) else chunk.payload
            await (await self.scene.nats.publish_stored(chunk.subject, data, chunk.headers))


@asynccontextmanager
async def live_publishing(scene: EventWorld, options: Options | None = None) -> AsyncIterator[None]:
    """A live publisher in this process, which leads when the body begins."""
    chosen = options or Options()
    async with postgres.connect(scene.database.reader_dsn) as database:

        async def leads() -> bool:
            info = await scene.nats.stream_info(streams.CURSORS)
            return info is not None and info["state"]["messages"] == 2

        async with background(live.run(scene.nats, database, scene.health, chosen)):
            await until(leads, "a live publisher leads")
            yield
