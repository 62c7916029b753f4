# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Follow the system logs of machines: records of the stream ARVADOS_SYSLOG, for administrators.

What the stream republishes only wakes; records are read from the stream itself, from the last one
shown on. So there is no seam between history and live, and none after a lost connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from arvados_nats.commands import nats_login
from arvados_nats.commands.sanitize import harmless
from arvados_nats.commands.watch.events import Watch
from arvados_nats.contract import streams, subjects, system_log_records
from arvados_nats.contract.system_log_records import PRIORITIES, SystemLogRecord
from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.nats.history import StoredMessage
from arvados_nats.nats.lives import Life

_GATHER_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_REREAD_SECONDS = 60.0
"""A lost last message wakes nobody."""
_GLOB = frozenset("*?[")
_INDENT = "    "
_WARNING = PRIORITIES.index("warning")


@dataclass(frozen=True, slots=True)
class RecordSelection:
    """Which records: of this host and any of these units (None or none: all), this bad or worse.

    Host and units may be patterns, as of file names.
    """

    host: str | None = None
    units: tuple[str, ...] = ()
    priority: int = len(PRIORITIES) - 1

    @property
    def subject(self) -> str:
        """The narrowest pattern of the stream's subjects that has all of them."""
        # `sshd` may stand for `sshd.service`.
        unit = self.units[0] if len(self.units) == 1 and "." in self.units[0] else None
        return f"{subjects.SYSTEM_LOGS}.{_token(self.host)}.{_token(unit)}"

    def takes(self, record: SystemLogRecord) -> bool:
        return (
            record.priority <= self.priority
            and (self.host is None or fnmatchcase(record.host, self.host))
            and (not self.units or any(_is_unit(record.unit, unit) for unit in self.units))
        )


class Shown(msgspec.Struct, frozen=True):
    """A record as JSON, and its place in the stream."""

    sequence: int
    record: SystemLogRecord


async def watch_system_logs(
    watch: Watch, nats_url: str, wanted: RecordSelection, *, oldest: bool
) -> None:
    """Show records, from the oldest or from now on; Refused without an admin's token."""
    who = await nats_login.holder_of(watch.settings)
    await nats_login.require_admin(nats_url, watch.settings.token, who, "system logs")
    async with nats_login.login(nats_url, watch.settings.token, who) as nats:
        await _follow(nats, Reader(nats, watch, wanted, oldest=oldest))


async def _follow(nats: Nats, reader: Reader) -> None:
    news = asyncio.Event()

    async def heard(message: Message) -> None:
        reader.heard = max(reader.heard, int(message.headers["Nats-Sequence"]))
        news.set()

    nats.on_change(lambda connected: news.set() if connected else None)
    await nats.subscribe(subjects.stored(reader.subject), heard)
    await nats.flush()
    while True:
        news.clear()
        if await reader.read():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REREAD_SECONDS):
                    await news.wait()
            await asyncio.sleep(_GATHER_SECONDS)
        else:
            await asyncio.sleep(_RETRY_SECONDS)


class Reader:
    """Reads on from where it stopped; `heard` is the last sequence that the server told of."""

    def __init__(self, nats: Nats, watch: Watch, wanted: RecordSelection, *, oldest: bool) -> None:
        self.subject = wanted.subject
        self.heard = 0
        self._nats = nats
        self._watch = watch
        self._wanted = wanted
        self._oldest = oldest
        self._last: int | None = None
        self._life = Life(nats, streams.SYSTEM_LOGS)
        self._looked = 0

    async def read(self) -> bool:
        """Show what is new; False if there is more than could be had now."""
        try:
            last = await self._look()
            async for stored in self._nats.history(
                streams.SYSTEM_LOGS, self.subject, first=last + 1
            ):
                self._last = last = stored.sequence
                self._show(stored)
        except Unavailable as error:
            self._watch.notes.tell(f"{error}; trying again")
            return False
        return self.heard <= last  # a copy of the stream may be behind what its leader told

    async def _look(self) -> int:
        """The sequence to read after; tells what has left the stream unread."""
        same = await self._life.look()
        if same is None:
            raise Unavailable("there are no system logs yet: do the publishers run?")
        if not same:
            self._watch.notes.tell("the stream of system logs was made anew")
            self._life = Life(self._nats, streams.SYSTEM_LOGS)
            self._last = self._looked = self.heard = 0
            return await self._look()
        first, end, last = self._life.first, self._life.last, self._last
        if last is None:
            last = first - 1 if self._oldest else end
        if 0 < (looked := max(last, self._looked)) < first - 1:
            self._watch.notes.tell(
                f"{first - 1 - looked} records have left the stream before they were read here"
            )
        self._last, self._looked = last, end
        return last

    def _show(self, stored: StoredMessage) -> None:
        try:
            record = system_log_records.decode(stored.data)
        except BadInput as error:
            self._watch.notes.tell(f"message {stored.sequence}: {error}")
            return
        if self._wanted.takes(record):
            self._watch.show(lines(record), Shown(stored.sequence, record))


def lines(record: SystemLogRecord) -> Iterator[str]:
    """A record as lines for people; the second and later ones are indented.

    Names too are what a program says of itself, and act no more than the message.
    """
    raw = base64.b64decode(record.message_base64) or record.message.encode()
    first, *more = (_harmless(line) for line in raw.rstrip(b"\n").split(b"\n"))
    program = f" {record.identifier}" if record.identifier else ""
    pid = f"[{record.pid}]" if record.pid else ""
    bad = f" {PRIORITIES[record.priority]}:" if 0 <= record.priority <= _WARNING else ""
    origin = _harmless(f"{record.at} {record.host} {record.unit}{program}{pid}:".encode())
    yield f"{origin}{bad} {first}"
    for line in more:
        yield f"{_INDENT}{line}"
    if record.cut_bytes:
        yield f"{_INDENT}({record.cut_bytes} bytes of this record were left out)"


def _harmless(line: bytes) -> str:
    return harmless(line)


def _token(name: str | None) -> str:
    """The token of a name in the subject; a wildcard for a pattern or none."""
    return "*" if name is None or _GLOB & set(name) else subjects.file_token(name)


def _is_unit(unit: str, pattern: str) -> bool:
    return fnmatchcase(unit, pattern) or fnmatchcase(unit, f"{pattern}.service")
