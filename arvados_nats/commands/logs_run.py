# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One run of `arvados-nats logs`: whose logs, of which attempt, one after the other or at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from arvados_nats.client.stream import Stream
from arvados_nats.commands import arvados_settings, logs, processes, proxy_connection, waiting
from arvados_nats.commands.arvados_settings import ArvadosSettings
from arvados_nats.commands.command import Notes
from arvados_nats.commands.log_lines.printers import Printer
from arvados_nats.commands.logs import LogSelection, Show
from arvados_nats.commands.processes import Process
from arvados_nats.errors import Refused
from arvados_nats.protocol_v1.messages import Attempt, Attempts, CaughtUp, End

_LOST_SECONDS = 60.0
"""How long a lost connection is tried when nobody asked to follow."""
_REFUSED = 1


@dataclass(frozen=True, slots=True)
class Run:
    """`printer` makes one for the process of this name, empty where it is the only one."""

    settings: ArvadosSettings
    notes: Notes
    printer: Callable[[str], Printer]
    wanted: LogSelection
    attempt: int | None = None
    exit_code: bool = False
    proxy: str | None = None

    async def show(self, words: Sequence[str]) -> int:
        """Print the logs of these processes, from the cluster that they are of; the exit code."""
        settings = await arvados_settings.home(self.settings, self.proxy, words)
        return await replace(self, settings=settings)._show_there(words)

    async def _show_there(self, words: Sequence[str]) -> int:
        found = await self._find(words)
        timeout = None if self.wanted.follow else _LOST_SECONDS
        async with proxy_connection.connect(
            self.settings, self.proxy, self.notes, reconnect_timeout=timeout
        ) as events:
            if len(found) == 1:
                await self._show(events, found[0], "")
                codes = [0]
            elif self.wanted.follow:
                codes = await asyncio.gather(*(self._beside(events, one) for one in found))
            else:
                codes = [await self._beside(events, one) for one in found]
        if self.exit_code and not any(codes):
            codes = [await logs.exit_code(self.settings, one.uuid) for one in found]
        return next(filter(None, codes), 0)

    async def _find(self, words: Sequence[str]) -> list[Process]:
        if words and all(map(processes.may_be_uuid, words)):
            return list(dict.fromkeys(map(Process, words)))
        async with self.settings.connect() as arvados:
            found = list(dict.fromkeys(await processes.find(arvados, self.settings.token, words)))
        for one in found:
            if one.name:
                self.notes.tell(f"{one.uuid} {one.name}")
        return found

    async def _beside(self, events: Stream, process: Process) -> int:
        """One of several; what is refused of it does not end the others."""
        try:
            await self._show(events, process, process.label)
        except Refused as error:
            self.notes.tell(str(error))
            return _REFUSED
        return 0

    async def _show(self, events: Stream, process: Process, label: str) -> None:
        wanted = replace(self.wanted, uuid=process.uuid)
        try:
            if self.attempt is not None:
                wanted = replace(wanted, only=await self._container(events, process.uuid))
            handle = await events.log(
                wanted.uuid, files=wanted.files or None, tail=wanted.tail, container=wanted.only
            )
            show = Show(wanted, self.printer(label), self.notes)
            async with self._waiting(events, process.uuid, show, label):
                await show.run(handle)
            if not show.received and wanted.tail != 0:
                await self._nothing(events, process.uuid, over=handle.done)
            await handle.close()
        except Refused as error:
            raise proxy_connection.about(process.uuid, error) from error.__cause__

    async def _nothing(self, events: Stream, uuid: str, *, over: bool) -> None:
        """Say that nothing came, and why, unless it is over."""
        why = "" if over else await waiting.why(events, uuid)
        where = f" in {', '.join(self.wanted.files)}" if self.wanted.files else ""
        told = f"nothing has been logged{where}" + ("" if over else " yet")
        self.notes.tell(f"{told}: {why}" if why else told)

    @asynccontextmanager
    async def _waiting(
        self, events: Stream, uuid: str, show: Show, label: str
    ) -> AsyncIterator[None]:
        """Say why nothing comes yet, of what is followed alone on a terminal."""
        if not self.wanted.follow or label or not self.notes.seen:
            yield
            return
        telling = asyncio.create_task(
            waiting.tell(events, uuid, self.notes, lambda: show.received > 0)
        )
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait([telling])

    async def _container(self, events: Stream, request: str) -> str:
        """The container of the attempt that is wanted."""
        known = await attempts(events, request)
        for container, n in known.items():
            if n == self.attempt:
                return container
        told = ", ".join(map(str, sorted(known.values()))) or "none"
        raise Refused(f"no attempt {self.attempt} is known; known: {told}")


async def attempts(events: Stream, request: str) -> dict[str, int]:
    """The containers that a request has had, and which attempt each was."""
    known: dict[str, int] = {}
    handle = await events.log(request, tail=0)
    try:
        async for message in handle:
            match message:
                case Attempts():
                    return message.containers
                case Attempt():
                    known[message.container] = message.n
                    return known
                case CaughtUp() | End():
                    return known
        return known
    finally:
        await handle.close()
