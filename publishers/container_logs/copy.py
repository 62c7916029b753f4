# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Carry new bytes of the files of one container from the controller to the stream.

Holds the state of every file (`LogFile`) between one read and the next; when to read is the
tailer's business. A file that the compute node pushes itself is left to it, and taken over only
when the push has stood still for a while though there is more to read.
"""

from __future__ import annotations

import logging
import time

from arvados_nats.contract import log_chunks
from arvados_nats.contract.log_chunks import Chunk
from arvados_nats.errors import BadInput
from publishers.container_logs import metrics as log_metrics
from publishers.container_logs.containers import Container
from publishers.container_logs.file import LogFile
from publishers.container_logs.source import LogSource
from publishers.container_logs.writer import Fenced, LogWriter

logger = logging.getLogger(__name__)

_UNASKED = 3
"""So many looks in a row read what grows, and ask nothing about other files."""


class LogCopy:
    """The files of one container, as far as they were carried over."""

    def __init__(self, source: LogSource, writer: LogWriter, *, push_patience: float) -> None:
        self.files: dict[str, LogFile] = {}
        self._source = source
        self._writer = writer
        self._push_patience = push_patience
        self._push_moved: dict[str, float] = {}
        self._skipped: set[str] = set()
        self._grew: set[str] = set()
        self._unasked = 0

    async def file(self, name: str) -> LogFile | None:
        """A file where the stream left it; None if its name cannot be published."""
        if name in self.files or name in self._skipped:
            return self.files.get(name)
        try:
            log_chunks.require_usable(name)
        except BadInput as error:
            self._skip(name, error)
            return None
        file = LogFile(self._writer.container_uuid, name)
        last = await self._writer.last(name)
        if last.sequence and not last.pushed and not self.files:
            log_metrics.TAKEOVERS.inc()
        file.resume(last)
        self.files[name] = file
        return file

    def _skip(self, name: str, error: BadInput) -> None:
        self._skipped.add(name)
        log_metrics.SKIPPED.inc()
        logger.warning(
            "log file skipped",
            extra={
                "action": "logs.skip_file",
                "container_uuid": self._writer.container_uuid,
                "error": str(error),
            },
        )

    @property
    def holds_back(self) -> bool:
        """Whether an unfinished line waits for its end."""
        return any(file.held for file in self.files.values())

    def growing(self) -> list[LogFile]:
        """Those to be read on at this look, as they grew of late; none where it is time to ask for
        the sizes of all files, which costs as much as reading one."""
        found = [file for name in self._grew if (file := self.files.get(name)) and not file.pushed]
        if self._unasked < _UNASKED and len(found) == 1:
            self._unasked += 1
            return found
        self._unasked = 0
        self._grew.clear()
        return []

    async def read_on(self, container: Container, file: LogFile) -> int | None:
        """Carry what has come to a file; its size, or None where the folder has to be asked.

        Rewritten if the file no longer holds what was carried before.
        """
        started = time.perf_counter()
        before = file.read_to
        found = await self._source.read(container, file.name, *file.wanted_next())
        if found.size is None or found.size < before:
            return None
        await self.write(file, file.take(found.data))
        if file.read_to != before:
            self._grew.add(file.name)
            log_metrics.LAG_SECONDS.observe(time.perf_counter() - started)
        return found.size

    async def catch_up(self, container: Container, file: LogFile, size: int, reads: int) -> bool:
        """Carry a file up to `size`, in at most `reads` calls; whether that was enough.

        Rewritten if the file no longer holds what was carried before.
        """
        started = time.perf_counter()
        for _ in range(reads):
            wanted = file.wanted(size)
            if wanted is None:
                break
            before = (file.epoch, file.read_to)
            found = await self._source.read(container, file.name, *wanted)
            await self.write(file, file.take(found.data))
            self._grew.add(file.name)
            log_metrics.LAG_SECONDS.observe(time.perf_counter() - started)
            if (file.epoch, file.read_to) == before:
                break
        return file.read_to >= size

    async def verify(self, container: Container, file: LogFile) -> None:
        """Rewritten if the last bytes of a pushed file are not those of the container's log.

        A pipe has no offsets: bytes that a killed process had taken from it shift the rest.
        """
        wanted = file.last_known()
        if wanted is not None:
            file.take((await self._source.read(container, file.name, *wanted)).data)

    async def write(self, file: LogFile, chunks: list[Chunk]) -> None:
        """Store chunks in order; if somebody else wrote to the file, go on from where it stands."""
        for chunk in chunks:
            try:
                await self._writer.append(chunk)
            except Fenced as fenced:
                logger.info(
                    "another writer is at this log file",
                    extra={
                        "action": "logs.fenced",
                        "container_uuid": chunk.container_uuid,
                        "file": chunk.file,
                        "pushed": fenced.last.pushed,
                    },
                )
                file.resume(fenced.last)
                return
            except BadInput as error:  # a name that fits us and not NATS, say
                self.files.pop(file.name, None)
                self._skip(file.name, error)
                return

    async def restart(self, file: LogFile) -> None:
        """The file began anew."""
        log_metrics.GAPS.inc()
        logger.info(
            "log file began anew",
            extra={
                "action": "logs.epoch",
                "container_uuid": file.container_uuid,
                "file": file.name,
                "epoch": file.epoch + 1,
                "offset": file.read_to,
            },
        )
        await self.write(file, file.restart())

    async def leave_to_push(self, file: LogFile, size: int) -> bool:
        """Whether a pushed file of `size` bytes is still in the hands of the one who pushes it."""
        last = await self._writer.last(file.name)
        moved = (last.epoch, last.offset) != (file.epoch, file.offset)
        file.resume(last)
        if not last.pushed:
            return False
        now = time.monotonic()
        since = self._push_moved.setdefault(file.name, now)
        if moved or last.offset >= size:
            self._push_moved[file.name] = now
            return True
        if now - since < self._push_patience:
            return True
        file.pushed = False
        log_metrics.PUSHED_SIZES_DIFFER.inc()
        return False
