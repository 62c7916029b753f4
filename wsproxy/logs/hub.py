# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One container's log files, heard once for all their readers.

Each chunk that the stream republishes becomes one frame, written in a loop to every consumer that
is exactly there (`frontier` decides); a consumer that is not reads history at its own pace
(`consumer`). A lost last message shows no hole, so the stream is asked when the connection was
away and every half minute. Of what the stream does not tell, Arvados is asked (`record`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Protocol

from arvados_nats.contract import events, subjects
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd, FileEnd
from arvados_nats.errors import ArvadosNatsError, Refused, Unavailable
from arvados_nats.nats.client import Message, Nats
from wsproxy.logs.follower import Follower
from wsproxy.logs.frontier import Frontier
from wsproxy.logs.history import LogHistory
from wsproxy.logs.live_file import LogFile
from wsproxy.logs.recent_bytes import RecentBytes
from wsproxy.logs.record import ContainerRecord
from wsproxy.logs.saved import FINAL, Access, SavedLogs
from wsproxy.logs.stored import StoredLogs, heard
from wsproxy.transport import failures

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 30.0
_QUIET_SECONDS = 20.0
"""A container whose log says something was not over so long ago."""
_RETRY_SECONDS = 0.5
_EARLY = 200
"""Live messages that are kept until it is known how far the files are: the newest. What was before
them is read from the stream."""
MOST_FILES = 100
"""Of one container; crunch-run writes about ten, and a container may name any."""
_ASK_AT_MOST = 3
"""Logins with whose tokens it is tried at one time."""


class Consumer(Follower, Protocol):
    """A follower of all files of a container that it has chosen."""

    def enter(self, file: LogFile) -> None:
        """Follow a file that has appeared, if it is one of those chosen."""

    def leave(self, files: Mapping[str, LogFile]) -> None:
        """Follow none of these any more: the same files come again, in another stream."""


class LogHub:
    """All log files of one container, while somebody reads them; `run` until cancelled."""

    def __init__(
        self,
        container: str,
        nats: Nats,
        stored: StoredLogs,
        saved: SavedLogs,
        history: LogHistory,
        recent: RecentBytes,
    ) -> None:
        self.container = container
        self.history = history
        self.files: dict[str, LogFile] = {}
        self.consumers: set[Consumer] = set()
        self.end: ContainerEnd | None = None
        self.record = ContainerRecord(container, saved, self._known)
        self.ready = asyncio.Event()
        self.check_now = asyncio.Event()
        self._stream_lost = False
        self._nats = nats
        self._stored = stored
        self._recent = recent
        self._early: deque[Message] | None = deque(maxlen=_EARLY)
        self._looked = 0
        """The stream was read up to this sequence; what was heard after it may not be all."""
        self._looking = asyncio.Lock()
        self._heard_at = float("-inf")

    async def run(self) -> None:
        """Listen until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._leave)
            await self._listen(stack)
            await self._begin()
            self.ready.set()
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_SECONDS * random.uniform(0.8, 1.2)):
                        await self.check_now.wait()
                self.check_now.clear()
                if self._stream_lost and self.end is None:
                    await self._begin_anew()
                with contextlib.suppress(ArvadosNatsError):
                    await self._check()

    def stream_lost(self) -> None:
        """The stream is another one, in which the log is published once more."""
        self._stream_lost = True
        self.check_now.set()

    async def _begin_anew(self) -> None:
        """Follow the files in the stream that there is now; consumers go on at their bytes."""
        self._stream_lost, self._early, self._looked = False, deque(maxlen=_EARLY), 0
        self._leave()
        for consumer in tuple(self.consumers):
            consumer.leave(self.files)
        self.files = {}
        await self._begin()

    def _leave(self) -> None:
        for file in self.files.values():
            file.end()

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        logs = subjects.stored(subjects.logs_of(self.container))
        changes = subjects.stored(subjects.events_of(self.container))
        for subject, handler in ((logs, self._take), (changes, self._changed)):
            subscription = await self._nats.subscribe(subject, handler)
            stack.push_async_callback(subscription.unsubscribe)

    async def _begin(self) -> None:
        """Learn how far each file is in the stream, and go on from there with what came since."""
        while True:
            try:
                await self._nats.flush()
                starts = await self._stored.starts(self.container)
                break
            except Unavailable as error:
                logger.warning(
                    "log stream cannot be read; trying again",
                    extra={"action": "log_hub.begin", "error": str(error)},
                )
                await asyncio.sleep(_RETRY_SECONDS)
        self._looked = max((sequence for sequence, _ in starts), default=0)
        if starts:
            self._heard_at = asyncio.get_running_loop().time()
        ends = [(sequence, end) for sequence, end in starts if isinstance(end, ContainerEnd)]
        end_at = ends[0][0] if ends else self._looked
        for sequence, parsed in starts:
            if isinstance(parsed, Chunk) and sequence <= end_at and self._has_room(parsed.file):
                file = self._file(parsed.file)
                file.apply(file.frontier.begin(parsed, sequence))
        for _, end in ends:
            self._finish(end)  # what was stored after it is not of the log
        early, self._early = self._early or (), None
        for message in early:
            self._handle(message)
        if len(early) == _EARLY:
            self.check_now.set()  # of a file of which nothing is left here

    async def _take(self, message: Message) -> None:
        if self._early is not None:
            self._early.append(message)
        else:
            self._handle(message)

    async def _changed(self, message: Message) -> None:
        """The container's record changed: a container that never ran has no other end."""
        event = events.decode(message.data)
        attributes = event.properties.get("new_attributes")
        if event.verified is False or not isinstance(attributes, dict):
            return
        if attributes.get("state") in FINAL:
            self.record.changed()
            self.check_now.set()

    def _handle(self, message: Message) -> None:
        parsed, sequence, previous = heard(message)
        if isinstance(parsed, ContainerEnd):
            self._heard_at = asyncio.get_running_loop().time()
            self._finish(parsed)
        else:
            self._accept(parsed, sequence, previous)

    def _accept(self, chunk: Chunk, sequence: int, previous: int | None) -> None:
        if self.end is None and self._has_room(chunk.file):
            self._heard_at = asyncio.get_running_loop().time()
            file = self._file(chunk.file)
            file.apply(file.frontier.accept(chunk, sequence, previous))

    def _has_room(self, name: str) -> bool:
        return name in self.files or len(self.files) < MOST_FILES

    def _file(self, name: str) -> LogFile:
        file = self.files.get(name)
        if file is not None:
            return file
        made = self.files[name] = LogFile(self.container, name, self._recent)
        failures.each(self.consumers, lambda consumer: consumer.enter(made))
        return made

    def _finish(self, end: ContainerEnd) -> None:
        if self.end is not None:
            return
        for name in end.files:
            self._file(name)
        self._finish_files(end.files)
        self.end = end
        failures.each(self.consumers, lambda consumer: consumer.wake())

    def _finish_files(self, ends: Mapping[str, FileEnd]) -> None:
        """Send the rest of each; of one without an end here what was heard is all."""
        for name, file in self.files.items():
            epoch, size = file.frontier.epoch, file.frontier.edge
            if last := ends.get(name):
                epoch, size = last.epoch, last.size
            file.apply(file.frontier.finish(epoch, size))
        for file in self.files.values():
            file.flush()

    async def _check(self) -> None:
        """See to it that nothing was missed, and that an end nobody announced is found."""
        await self.look()
        if self.end is not None or self.hot:
            return
        await asyncio.sleep(max(self.record.due, self.record.rest))
        seeing = (one for one in self.consumers if not self.record.hidden_from(one.access))
        for consumer in tuple(islice(seeing, _ASK_AT_MOST)):
            with contextlib.suppress(Refused):
                await self.settle(consumer.access)
                if not self.record.hidden_from(consumer.access):
                    break
        if self.end is None and self.record.rest:
            self.check_now.set()

    async def look(self) -> None:
        """Take from the stream what was not heard.

        Raises Unavailable when it cannot be read.
        """
        async with self._looking:
            if self.end is not None or not await self._stored.newer(self.container, self._looked):
                return
            files, last = self.files, await self._stored.last(self.container)
            await self._nats.flush()  # what is merely on its way is heard before
            await asyncio.sleep(0)
            if self.files is not files:
                return  # of another stream by now
            self._looked = max((sequence for sequence, _ in last), default=self._looked)
            for sequence, parsed in last:
                if isinstance(parsed, Chunk):
                    self._accept(parsed, sequence, None)
                else:
                    self._finish(parsed)

    def _known(self) -> Mapping[str, Frontier]:
        return {name: file.frontier for name, file in self.files.items()}

    @property
    def hot(self) -> bool:
        """Whether something was heard a moment ago: a replica of the stream may only be late."""
        return asyncio.get_running_loop().time() - self._heard_at < _QUIET_SECONDS

    def end_for(self, access: Access) -> ContainerEnd | None:
        """The end as this reader is told it: for all, or since the saved log is hidden from it."""
        return self.end or self.record.hidden_from(access)

    async def rest(self, access: Access) -> float:
        """Seconds for which more is to be waited for before all that there is was sent: the
        container has just ended. Where the stream has some of the log, Arvados is asked once.

        Raises Unavailable where the stream has nothing and Arvados cannot tell.
        """
        if not (self.files and self.record.was_asked):
            # Where it is the permission that is gone, that is told elsewhere.
            with contextlib.suppress(ArvadosNatsError if self.files else Refused):
                await self.settle(access)
        return 0.0 if self.end_for(access) else self.record.rest

    async def settle(self, access: Access) -> None:
        """Find out from Arvados whether a container is over whose end the stream does not tell.

        Raises Refused and Unavailable as Arvados does.
        """
        if self.end_for(access) is not None:
            return
        end = await self.record.end(access)
        if end is not None:
            self._finish(end)
        elif self.record.hidden_from(access):
            self._finish_files({})
            failures.each(self.consumers, lambda consumer: consumer.wake())
