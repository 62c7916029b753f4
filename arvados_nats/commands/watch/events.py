# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Follow an object or events, as lines for a person or JSON for a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from arvados_nats.arvados.client import NotFound
from arvados_nats.commands import arvados_settings, proxy_connection
from arvados_nats.commands.arvados_settings import ArvadosSettings
from arvados_nats.commands.command import Notes
from arvados_nats.commands.watch import text as watch_text
from arvados_nats.errors import Refused
from arvados_nats.protocol_v1.messages import (
    NOT_READABLE,
    Error,
    Event,
    Gap,
    Gone,
    Narrowed,
    Object,
)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who watches, and how it is shown. `write` takes the bytes of whole lines."""

    settings: ArvadosSettings
    write: Callable[[bytes], None]
    notes: Notes
    as_json: bool = False
    proxy: str | None = None

    def show(self, lines: Iterable[str], message: msgspec.Struct) -> None:
        """Print the message: as one line of JSON, or the lines for a person."""
        if self.as_json:
            self.write(msgspec.json.encode(message) + b"\n")
        else:
            self.write("".join(f"{line}\n" for line in lines).encode())


async def watch_object(watch: Watch, uuid: str) -> int:
    """Show the state of an object and each later one, until it is gone; then 1."""
    record: Mapping[str, Any] | None = None
    settings = await arvados_settings.home(watch.settings, watch.proxy, [uuid])
    async with proxy_connection.connect(
        settings, watch.proxy, watch.notes, reconnect_timeout=None
    ) as events:
        try:
            async for message in await events.object(uuid):
                if isinstance(message, Object):
                    watch.show(watch_text.object_lines(record, message), message)
                    record = message.record
                elif isinstance(message, Error) and message.temporary:
                    watch.notes.tell(f"{message.message}; trying again")
        except Refused as error:
            raise proxy_connection.about(uuid, error) from error.__cause__
    return 1


async def watch_events(watch: Watch, readable: str | None = None, **filters: Any) -> int:
    """Show changes of objects, for ever; see `Stream.events` for the filters. Of what is not
    `readable` nothing would ever come."""
    places = (*filters.get("owners", ()), *filters.get("objects", ()))
    settings = await arvados_settings.home(watch.settings, watch.proxy, places)
    if readable:
        await _see(settings, readable)
    async with proxy_connection.connect(
        settings, watch.proxy, watch.notes, reconnect_timeout=None
    ) as events:
        async for message in await events.events(**filters):
            if isinstance(message, Event):
                watch.show([watch_text.event_line(message)], message)
            elif isinstance(message, Gone):
                watch.show([watch_text.gone_line(message)], message)
            elif isinstance(message, Narrowed):
                watch.notes.tell("you may read less than before")
            elif isinstance(message, Gap):
                watch.notes.tell(message.reason)
            elif isinstance(message, Error) and message.temporary:
                watch.notes.tell(f"{message.message}; trying again")
    return 1


async def _see(settings: ArvadosSettings, uuid: str) -> None:
    """Refused if there is no such object, or it may not be read."""
    async with settings.connect() as arvados:
        try:
            await arvados.record(settings.token, uuid, select=["uuid"])
        except NotFound as error:
            raise Refused(f"{uuid}: {NOT_READABLE}") from error
