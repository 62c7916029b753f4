# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Follow the log of one container from its first byte to its confirmed end.

Asks the controller for the sizes of all files, reads what is new, and stores it: quickly while
somebody watches, slowly otherwise. When the container has ended, the saved log is read on at
the same offsets until its sizes are those of the stream, and the end marker closes the log. The
position is in the stream alone, so that a tailer can be stopped and started anywhere.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from arvados_nats.contract.log_chunks import ContainerEnd
from arvados_nats.errors import ArvadosNatsError, Unavailable
from publishers.container_logs import ending
from publishers.container_logs import metrics as log_metrics
from publishers.container_logs import pace as log_pace
from publishers.container_logs.containers import Container
from publishers.container_logs.copy import LogCopy
from publishers.container_logs.file import LogFile, Rewritten
from publishers.container_logs.pace import Pace, Situation
from publishers.container_logs.source import LogSource
from publishers.container_logs.writer import LogWriter

logger = logging.getLogger(__name__)

_READS_PER_POLL = 8
"""So that one noisy file does not keep the others of its container waiting."""
_FAILURES_PER_POLL = 3
"""A controller that does not answer is not asked for every file."""
_ALL = 1 << 30


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every tailer of a process shares.

    `look` reads a container's row as it is now; `tailed` counts the containers that are followed.
    """

    source: LogSource
    look: Callable[[str], Awaitable[Container | None]]
    watched: Callable[[str], bool]
    tailed: Callable[[], int]
    pace: Pace


class LogTailer:
    """Follows one container; `run` it, and tell it with `update` what became of the container."""

    def __init__(self, container: Container, writer: LogWriter, surroundings: Surroundings) -> None:
        self.container = container
        self._writer = writer
        self._around = surroundings
        self._copy = LogCopy(surroundings.source, writer, push_patience=surroundings.pace.push)
        self._wake = asyncio.Event()
        self._behind = False
        self._failures = 0
        self._finishes = 0
        self._ended_at: float | None = None
        self._lag = 0
        self._sizes: dict[str, int] = {}

    def update(self, container: Container) -> None:
        """The container's row as it is now. A request that showed it is not forgotten."""
        request = container.request_uuid or self.container.request_uuid
        changed = container.state != self.container.state or container.log != self.container.log
        self.container = dataclasses.replace(container, request_uuid=request)
        if changed:
            self.hurry()

    def hurry(self) -> None:
        """Poll now: somebody has begun to watch, or something happened."""
        self._wake.set()

    async def run(self) -> ContainerEnd:
        """Follow until the end marker is in the stream; waits out every outage."""
        try:
            while True:
                end = await self._attempt()
                if end is not None:
                    return end
                await self._pause()
        finally:
            self._set_lag(0)

    async def _attempt(self) -> ContainerEnd | None:
        try:
            end = await self._step()
        except ArvadosNatsError as error:
            self._failures += 1
            self._report(error)
            return None
        except Exception:
            # A mistake of ours costs one container its log, and not all of them theirs.
            self._failures += 1
            if self._failures == 1:
                told = {"action": "logs.failed", "container_uuid": self.container.uuid}
                logger.exception("log cannot be carried", extra=told)
            return None
        self._failures = 0
        return end

    async def _step(self) -> ContainerEnd | None:
        if self.container.final:
            return await self._writer.ended() or await self._finish()
        if self.container.state == "Running" or self.container.live:
            await self._poll()
        return None

    async def _poll(self) -> None:
        """Carry over what is new in each file; while somebody watches what has just grown is read
        without asking for sizes, so that a look is one call."""
        watched = self._is_watched
        log_metrics.POLLS.labels("fast" if watched else "slow").inc()
        self._behind = False
        if watched and await self._read_on():
            return
        self._sizes = await self._around.source.sizes(self.container)
        self._measure()
        await self._each(self._sizes, self._advance)
        self._measure()

    async def _read_on(self) -> bool:
        """Whether there was a file to be read on, and no more need be asked at this look."""
        growing = self._copy.growing()
        for file in growing:
            try:
                size = await self._copy.read_on(self.container, file)
            except Rewritten:
                return await self._begin_anew(file)
            if size is None:
                return False
            self._sizes[file.name] = size
            self._behind |= size > file.read_to
            await self._copy.write(file, file.settle())
            self._measure()
        return bool(growing)

    async def _each(
        self, sizes: dict[str, int], carry: Callable[[LogFile, int], Awaitable[bool]]
    ) -> bool:
        """Carry over each file; whether all are complete.

        One that cannot be read, for example for a lost block in Keep, does not stop the others;
        Unavailable is raised for it afterwards.
        """
        complete, failures = True, []
        for name, size in sorted(sizes.items()):
            try:
                file = await self._copy.file(name)
                complete &= file is None or await carry(file, size)
            except Unavailable as error:
                failures.append(error)
                if len(failures) == _FAILURES_PER_POLL:
                    break
        if failures:
            raise failures[0]
        return complete

    async def _advance(self, file: LogFile, size: int) -> bool:
        if file.pushed and await self._copy.leave_to_push(file, size):
            return False
        if size < file.read_to:
            return await self._begin_anew(file)
        before = file.read_to
        try:
            done = await self._copy.catch_up(self.container, file, size, _READS_PER_POLL)
        except Rewritten:
            return await self._begin_anew(file)
        self._behind |= not done and file.read_to != before
        await self._copy.write(file, file.settle())
        return done

    async def _begin_anew(self, file: LogFile) -> bool:
        """Start a new epoch, if it was the node who answered and not Keep with an old checkpoint.

        A container that is alive after the answer was so before it; one that has ended meanwhile is
        read again as ended.
        """
        fresh = await self._around.look(self.container.uuid)
        if fresh is not None:
            self.update(fresh)
        if fresh is not None and fresh.live:
            await self._copy.restart(file)
            self._behind = True
        return False

    async def _finish(self) -> ContainerEnd | None:
        """Read the saved log on from where the stream ends; the end marker once that is done."""
        self._finishes += 1
        fresh = await self._around.look(self.container.uuid)
        if fresh is not None:
            self.update(fresh)
        sizes = await self._saved_sizes()
        since = self._since_end()
        patience_over = since >= self._around.pace.confirm
        settled = ending.is_settled(self.container, sizes, patience_over=patience_over)
        try:
            complete = await self._each(sizes, partial(self._complete, settled=settled))
        except Unavailable:
            if since < self._around.pace.give_up:
                raise
            complete = False
        if not settled or not (complete or patience_over):
            return None
        return await self._close(sizes)

    async def _saved_sizes(self) -> dict[str, int]:
        never_ran = not self.container.started and self.container.log is None
        sizes = {} if never_ran else await self._around.source.sizes(self.container)
        if ending.is_missing(self.container, sizes):
            if self._since_end() < self._around.pace.give_up:
                raise Unavailable("Arvados lists no file of a log that was saved")
        return sizes

    async def _complete(self, file: LogFile, size: int, *, settled: bool) -> bool:
        """Carry over all that the saved log has of a file; whether nothing is missing."""
        pushed = file.pushed
        if pushed and await self._copy.leave_to_push(file, size) and file.offset < size:
            return False
        try:
            done = await self._copy.catch_up(self.container, file, size, _ALL)
            if pushed and settled:
                await self._copy.verify(self.container, file)
        except Rewritten:
            if not settled:
                return False
            await self._copy.restart(file)
            done = await self._copy.catch_up(self.container, file, size, _ALL)
        await self._copy.write(file, file.flush())
        return done

    async def _close(self, sizes: dict[str, int]) -> ContainerEnd:
        for name in await self._writer.files():
            await self._copy.file(name)
        end = ending.marker(self.container, self._copy.files.values(), sizes)
        if end.files or not ending.is_missing(self.container, sizes):
            await self._writer.end(end)  # else readers ask Arvados, each with their own token
        log_metrics.ENDS.inc()
        log_metrics.UNCONFIRMED.inc(sum(not file.confirmed for file in end.files.values()))
        return end

    def _since_end(self) -> float:
        """Seconds since the first look at the ended container."""
        now = time.monotonic()
        if self._ended_at is None:
            self._ended_at = now
        return now - self._ended_at

    @property
    def _is_watched(self) -> bool:
        """Whether haste is of use: without a gateway the log changes at checkpoints only."""
        changes = self.container.live or self.container.final
        return changes and self._around.watched(self.container.uuid)

    async def _pause(self) -> None:
        """Wait until the next poll is due, or until something happens."""
        try:
            async with asyncio.timeout(log_pace.delay(self._around.pace, self._situation())):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _situation(self) -> Situation:
        return Situation(
            watched=self._is_watched,
            tailed=self._around.tailed(),
            more=self._behind,
            holds_back=self._copy.holds_back,
            tries=self._failures + self._finishes,
        )

    def _measure(self) -> None:
        files = self._copy.files
        self._set_lag(
            sum(
                max(0, size - (files[name].offset if name in files else 0))
                for name, size in self._sizes.items()
            )
        )

    def _set_lag(self, lag: int) -> None:
        log_metrics.LAG_BYTES.inc(lag - self._lag)
        self._lag = lag

    def _report(self, error: ArvadosNatsError) -> None:
        severity = logging.INFO if isinstance(error, Unavailable) else logging.WARNING
        if self._failures == 1:
            logger.log(
                severity,
                "log cannot be read now",
                extra={
                    "action": "logs.poll_failed",
                    "container_uuid": self.container.uuid,
                    "error": str(error),
                },
            )
