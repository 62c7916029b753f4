# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats logs --list`: one's newest processes, or the attempts and log files of some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from arvados_nats.arvados.client import Arvados, NotFound
from arvados_nats.client.stream import Stream
from arvados_nats.commands import arvados_settings, logs_run, processes, proxy_connection
from arvados_nats.commands.arvados_settings import ArvadosSettings
from arvados_nats.commands.command import Notes
from arvados_nats.commands.processes import Process
from arvados_nats.commands.sanitize import harmless
from arvados_nats.errors import Refused

_NEWEST = 20
_LOST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Listing:
    """A line for each process or file, or a JSON object."""

    settings: ArvadosSettings
    write: Callable[[bytes], None]
    notes: Notes
    as_json: bool
    proxy: str | None

    async def show(self, words: Sequence[str]) -> int:
        """Print attempts and files of these processes; without any, one's newest processes."""
        settings = await arvados_settings.home(self.settings, self.proxy, words)
        return await replace(self, settings=settings)._show_there(words)

    async def _show_there(self, words: Sequence[str]) -> int:
        async with self.settings.connect() as arvados:
            if words:
                await self._files(arvados, words)
            else:
                mine = await processes.mine(arvados, self.settings.token, _NEWEST)
                for process in mine:
                    self._print(_row(process), _process_words)
                if len(mine) == _NEWEST:
                    self.notes.tell(f"these are the newest {_NEWEST}; name an older one to see it")
        return 0

    async def _files(self, arvados: Arvados, words: Sequence[str]) -> None:
        found = await processes.find(arvados, self.settings.token, words)
        async with proxy_connection.connect(
            self.settings, self.proxy, self.notes, reconnect_timeout=_LOST_SECONDS
        ) as events:
            for process in found:
                request, known = await self._attempts(arvados, process, events)
                for container, attempt in sorted(known.items(), key=lambda one: one[1]):
                    told = {"process": process.uuid, "attempt": attempt, "container": container}
                    sizes = await self._sizes(arvados, request, container)
                    for file, size in sizes or [(None, 0)]:
                        self._print(told | {"file": file, "size": size}, _file_words)

    async def _attempts(
        self, arvados: Arvados, process: Process, events: Stream
    ) -> tuple[str, dict[str, int]]:
        """The request below which Arvados shows the logs, and its attempts."""
        if "-dz642-" not in process.uuid:
            return process.uuid, await logs_run.attempts(events, process.uuid)
        shown = [["container_uuid", "=", process.uuid]]
        found = await processes.newest(arvados, self.settings.token, shown, 1)
        if not found:
            raise Refused(f"no container request that you can see shows {process.uuid}")
        return found[0].uuid, {process.uuid: 1}

    async def _sizes(
        self, arvados: Arvados, request: str, container: str
    ) -> list[tuple[str | None, int]]:
        try:
            sizes = await arvados.log_sizes(self.settings.token, request, container)
        except NotFound:
            return []  # nothing has been logged
        return [*sorted(sizes.items())]

    def _print(self, row: dict[str, Any], words: Callable[[dict[str, Any]], str]) -> None:
        if self.as_json:
            self.write(msgspec.json.encode(row) + b"\n")
        else:
            self.write(harmless(words(row).encode("utf-8", "replace")).encode() + b"\n")


def _row(process: Process) -> dict[str, Any]:
    record = process.record or {}
    told = {"process": process.uuid, "name": process.name}
    return told | {name: record.get(name) for name in ("state", "created_at", "container_count")}


def _process_words(row: dict[str, Any]) -> str:
    return f"{row['process']}  {row['created_at']}  {row['state']:11}  {row['name']}"


def _file_words(row: dict[str, Any]) -> str:
    file = row["file"] or "no saved log"
    return f"{row['container']}  attempt {row['attempt']}  {row['size']:>12,}  {file}"
