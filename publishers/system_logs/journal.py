# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Lines of a machine's journal, from `journalctl`, which is started again whenever it ends.

The journal is the overflow queue: what NATS cannot take now is read later, from the cursor of the
last line. Where the journal has dropped what comes after a cursor (it was rotated away), reading
goes on with the oldest record there is, and the loss is counted and told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from arvados_nats.contract import system_log_records
from arvados_nats.errors import MALFORMED, ConfigError
from arvados_nats.service.ops import Health
from publishers.system_logs import lines as system_log_lines
from publishers.system_logs import metrics

logger = logging.getLogger(__name__)

_PROGRAM = "journalctl"
_ARGUMENTS = ("--output=json", "--all", "--follow", "--no-tail", "--quiet")
_AGAIN_SECONDS = 1.0
_BAD_CURSOR = b"cursor"
_PART = "journal"
_COMPLAINT_BYTES = 4096


class _Cursor(msgspec.Struct):
    cursor: str = msgspec.field(name="__CURSOR", default="")


@dataclass(frozen=True, slots=True)
class Journal:
    """Which journal to read: the machine's own, or that of a namespace of journald.

    `health` is told while it cannot be read.
    """

    health: Health
    namespace: str = ""

    async def lines(self, cursor: str) -> AsyncIterator[tuple[str, bytes]]:
        """(cursor, line) of each record after `cursor`, for ever; without one, of this boot."""
        while True:
            async for found, line in self._read(cursor):
                cursor = found
                yield found, line
            await asyncio.sleep(_AGAIN_SECONDS)

    def stored(self, cursor: str) -> None:
        """The journal keeps what it keeps."""

    async def _read(self, after: str) -> AsyncIterator[tuple[str, bytes]]:
        """Until journalctl ends. A line that is no record has the cursor of the one before it."""
        # Not --after-cursor: where the cursor is gone, that leaves out the record in its place.
        begin = [f"--cursor={after}"] if after else ["--boot"]
        cursor, joined = after, not after
        async with self._running(begin) as (process, complaining):
            assert process.stdout
            async for line in system_log_lines.of(process.stdout):
                self.health.well(_PART)
                found = _cursor_of(line)
                if found and not joined:
                    joined = True
                    if found == after:
                        continue
                    _tell_lost(after, found)
                cursor = found or cursor
                yield cursor, line
            complaint = await complaining
        if not joined and _BAD_CURSOR in complaint:
            _tell_lost(after, "")
            async for item in self._read_oldest():
                yield item
        self.health.fault(_PART, complaint.decode(errors="replace") or "journalctl has ended")

    async def _read_oldest(self) -> AsyncIterator[tuple[str, bytes]]:
        async with self._running([]) as (process, _):
            assert process.stdout
            async for line in system_log_lines.of(process.stdout):
                yield _cursor_of(line), line

    @asynccontextmanager
    async def _running(
        self, begin: Sequence[str]
    ) -> AsyncIterator[tuple[Process, asyncio.Task[bytes]]]:
        namespace = [f"--namespace={self.namespace}"] if self.namespace else []
        arguments = [*_ARGUMENTS, *namespace, *begin]
        try:
            process = await asyncio.create_subprocess_exec(
                _PROGRAM, *arguments, stdout=PIPE, stderr=PIPE
            )
        except OSError as error:
            raise ConfigError(f"cannot start {_PROGRAM}: {error.strerror}") from error
        metrics.JOURNAL_STARTS.inc()
        assert process.stderr
        complaining = asyncio.create_task(_last_of(process.stderr))
        try:
            yield process, complaining
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await complaining


async def _last_of(stream: asyncio.StreamReader) -> bytes:
    """The end of all that is said there: journalctl runs for months."""
    kept = b""
    while said := await stream.read(_COMPLAINT_BYTES):
        kept = (kept + said)[-_COMPLAINT_BYTES:]
    return kept


def _cursor_of(line: bytes) -> str:
    """The cursor in a line; empty if it has none, which the reader of records will tell."""
    try:
        return msgspec.json.decode(line, type=_Cursor).cursor
    except MALFORMED:
        return ""


def _tell_lost(cursor: str, found: str) -> None:
    metrics.CURSOR_LOST.inc()
    logger.warning(
        "the journal has dropped records that were not read; reading goes on with its oldest",
        extra={
            "action": "system_logs.cursor_lost",
            "after": system_log_records.cursor_time(cursor),
            "oldest": system_log_records.cursor_time(found),
        },
    )
