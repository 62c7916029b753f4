# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One subscription's way through the log files of one container: file by file, live or behind.

A reader that is behind in a file reads history piece by piece at the pace of its connection, until
it stands exactly where the live readers stand, and joins them in that loop turn. A connection that
is full drops out of the live readers of a file and does the same. Nobody waits for anybody, and no
more than one piece is in memory for a reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable
from arvados_nats.protocol_v1.messages import CaughtUp, Error, ServerMessage, encode
from wsproxy.logs import behind, notices
from wsproxy.logs import tail as log_tail
from wsproxy.logs.history import Step
from wsproxy.logs.hub import LogHub
from wsproxy.logs.live_file import LogFile
from wsproxy.logs.pieces import Hole, NewEpoch, Piece
from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import Access
from wsproxy.transport import failures
from wsproxy.transport.frames import Message
from wsproxy.transport.send_buffer import SendBuffer

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 15.0
_LOST = "the stream of logs was lost and made anew"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a reader wants of a container's logs.

    `files`: None for all. `places` gives (epoch or None for the present one, offset) of where to
    begin; other files begin at 0, or `tail` lines before their end. `former`: of an earlier
    attempt, beside which the present one is sent; `caught_up` is about that one.
    """

    files: frozenset[str] | None = None
    places: Mapping[str, tuple[int | None, int]] = field(default_factory=dict)
    tail: int | None = None
    former: bool = False


class LogConsumer:
    """Sends the chosen log files of a hub's container through `send`, exactly once each byte.

    `send_buffer` is the connection that `send` writes to. `id` names the subscription in messages
    that are not the same for all. `ended` is called after the container's end was sent.
    """

    def __init__(
        self,
        hub: LogHub,
        send_buffer: SendBuffer,
        access: Access,
        selection: Selection,
        *,
        id: str,
        send: Callable[[Message], None],
        ended: Callable[[], None],
    ) -> None:
        self.send_buffer = send_buffer
        self.access = access
        self.send = send
        self._hub = hub
        self._selection = selection
        self._id = id
        self._ended = ended
        self._behind: dict[str, LogPlace] = {}
        self._ahead: set[str] = set()
        self._tails: dict[str, LogPlace] = {}
        """Where the last lines begin, of each file there was and no place was named for."""
        self._looked: set[str] = set()
        """Files of which the stream itself was asked whether it has more than was heard."""
        self._begun = False
        self._caught_up = False
        self._stopped = False
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self.wake()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        self._hub.consumers.discard(self)
        for file in self._hub.files.values():
            file.leave(self)
        if self._task is not None:
            self._task.cancel()

    @property
    def stopped(self) -> bool:
        """Whether nothing will be sent any more: the end was, or `stop` was called."""
        return self._stopped

    @property
    def caught_up(self) -> bool:
        """Whether all that there is has been sent."""
        return self._caught_up and self._is_even

    @property
    def places(self) -> dict[str, LogPlace] | None:
        """The next byte to be sent of each file; None while it is not yet known."""
        if not self._begun:
            return None
        found = {name: file.place for name, file in self._hub.files.items() if self._follows(name)}
        return self._tails | found | self._behind

    def enter(self, file: LogFile) -> None:
        """Follow a file that has appeared, if it is one of those chosen."""
        if not self._follows(file.name):
            return
        place = self._first_place(file)
        if place == file.place and not self.send_buffer.lagging:
            file.live.append(self)
        else:
            self._behind[file.name] = place
            self.wake()

    def leave(self, files: Mapping[str, LogFile]) -> None:
        """Follow none of these any more: the same files come again, in another stream.

        Their offsets are those of the log itself, so this goes on at the next byte; what an epoch
        before the last had left is not to be had any more.
        """
        places = dict(self._selection.places)
        for name, place in (self.places or {}).items():
            file = files.get(name)
            lost = file is not None and place.epoch < file.frontier.epoch
            if lost:
                self._tell_gap(name, Hole(place, None, _LOST))
            places[name] = (None, 0 if lost else place.offset)
        for file in files.values():
            file.leave(self)
        self._selection = dataclasses.replace(self._selection, places=places)
        self._tails, self._behind, self._ahead = {}, {}, set()

    def fall_behind(self, name: str, place: LogPlace) -> None:
        """The live readers of a file went on without this one, which is at `place`."""
        self._behind[name] = place
        self.wake()

    def reached(self, name: str) -> None:
        """A file has grown that was not yet where this reader begins."""
        self._ahead.discard(name)
        self.wake()

    def wake(self) -> None:
        """Look whether there is something to do."""
        self._woken.set()
        if self._task is None and not self._stopped:
            self._task = asyncio.create_task(self._work(), name="log consumer")
            failures.end_with(self.send_buffer, self._task)

    def _follows(self, name: str) -> bool:
        return self._selection.files is None or name in self._selection.files

    def _has_tail(self, name: str) -> bool:
        return self._follows(name) and name not in self._selection.places

    def _first_place(self, file: LogFile) -> LogPlace:
        if file.name in self._tails:
            return self._tails[file.name]
        epoch, offset = self._selection.places.get(file.name, (None, 0))
        if epoch is None or not file.frontier.sequence:  # no epoch is known outside the stream
            epoch = file.frontier.epoch
        return LogPlace(epoch, offset)

    async def _work(self) -> None:
        pause = _FIRST_PAUSE
        try:
            while not self._stopped:
                await self.send_buffer.writable()
                if self.send_buffer.closed:
                    return
                try:
                    if await self._step():
                        return
                    pause = _FIRST_PAUSE
                except (Unavailable, BadInput) as error:
                    pause = await self._later(error, pause)
        finally:
            self._task = None

    async def _step(self) -> bool:
        """Do the next thing there is to do; True if there is none."""
        if not self._begun:
            await self._begin()
        rest = 0.0
        if self._is_even and not self._caught_up:
            rest = await self._hub.rest(self.access)
        if not self._is_even:
            await self._advance(next(name for name in self._behind if name not in self._ahead))
        elif rest:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._woken.wait()
        else:
            self._arrive()
            return True
        return False

    @property
    def _is_even(self) -> bool:
        """Whether all was sent that was heard."""
        return self._behind.keys() <= self._ahead

    async def _begin(self) -> None:
        """Wait for the hub, and find where to begin in each file that is there."""
        await self._hub.ready.wait()
        if not self._hub.files:
            await self._hub.rest(self.access)
        if (lines := self._selection.tail) is not None:
            self._tails = await log_tail.places(self._hub, self._has_tail, lines, self.access)
        self._begun = True
        self._hub.consumers.add(self)
        for file in self._hub.files.values():
            self.enter(file)
        if self._selection.tail is not None:
            self._tell(notices.places(self._id, self._hub.container, self._tails))

    async def _later(self, error: ArvadosNatsError, pause: float) -> float:
        """Tell once that history has to wait, and wait; the next pause."""
        if pause == _FIRST_PAUSE:
            self._tell(Error("unavailable", str(error), True, self._id))
        await asyncio.sleep(pause)
        return min(2 * pause, _LONGEST_PAUSE)

    async def _advance(self, name: str) -> None:
        """Send the next piece of a file, or join its live readers."""
        file, place = self._hub.files[name], self._behind.pop(name)
        self._behind[name] = place  # last in turn now
        goal = file.place
        if place == goal:
            del self._behind[name]
            file.live.append(self)
        elif place > goal and name not in self._looked:
            await behind.look(self._hub, file, place)
            self._looked.add(name)
        elif place.epoch > goal.epoch and file.frontier.sequence:
            # A place in another life of the stream, which cannot be compared.
            self._tell_gap(name, Hole(place, None, _LOST))
            self._behind[name] = LogPlace(goal.epoch, 0)
        elif place > goal:
            self._ahead.add(name)
            file.ahead.append(self)
        else:
            step = await behind.step(self._hub, file, place, self.access)
            if not self._stopped and self._hub.files.get(name) is file:
                self._take(name, place, step)

    def _take(self, name: str, place: LogPlace, step: Step) -> None:
        match step:
            case Piece():
                self._behind[name] = step.next
                self.send(step.message)
            case NewEpoch():
                self._behind[name] = LogPlace(step.epoch, 0)
            case Hole():
                self._behind[name] = step.next
                self._tell_gap(name, step)

    def _tell_gap(self, name: str, hole: Hole) -> None:
        self._tell(notices.gap(self._id, self._hub.container, name, hole))

    def _arrive(self) -> None:
        """All that was there is sent."""
        if not self._caught_up:
            self._caught_up = True
            if not self._selection.former:
                self._tell(CaughtUp(self._id))
        end = self._hub.end_for(self.access)
        if end is not None:
            hidden = self._hub.end is None
            for message in notices.ends(self._id, end, self._follows, hidden=hidden):
                self._tell(message)
            self._task = None  # this very task, which is done
            self.stop()
            self._ended()

    def _tell(self, message: ServerMessage) -> None:
        self.send(Message(encode(message)))
