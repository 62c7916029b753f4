# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Subscriptions of protocol v1: how each begins, what of the frames is its own, how it resumes.

Pure. Frames that are the same for all readers name no subscription, so each subscription picks its
own and drops what it has had: logs by byte offset, objects by etag, events by cursor. `request` is
at every moment what to send on a new connection, so that nothing is lost and nothing comes twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UnsetType

from arvados_nats.protocol_v1.messages import (
    Attempt,
    CaughtUp,
    End,
    Event,
    Gap,
    Gone,
    Log,
    Object,
    Places,
    ServerMessage,
    Subscribed,
)
from arvados_nats.protocol_v1.requests import EventsTarget, From, LogTarget, ObjectTarget

_ANEW = (-1, 0)
"""The place of a file that goes on at the first byte of an epoch that is not known yet."""


@dataclass(slots=True)
class LogSubscription:
    """Log files of a container, or of a container request and all its attempts.

    `files`: names, None for all. Each begins at byte 0, or `tail` lines before its end.
    `places` is (epoch, offset) of the next byte of each file of `container`, `former` the same of
    earlier attempts whose end has not come. `first`: the attempt to begin with.
    """

    uuid: str
    files: Sequence[str] | None = None
    tail: int | None = None
    container: str | None = None
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    former: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    ended: bool = False
    _container_ended: bool = False
    first: str | None = None
    _waits: bool = False
    """Only the server knows where the last lines begin, and has not said it yet."""

    def __post_init__(self) -> None:
        if "-dz642-" in self.uuid:
            self.container = self.uuid

    def request(self) -> LogTarget:
        """The target to subscribe to now."""
        former = {container: _from(places) for container, places in self.former.items()}
        return LogTarget(
            self.uuid,
            None if self.files is None else list(self.files),
            _from(self.places) or None,
            self.tail,
            None if self.container == self.uuid else self.container or self.first,
            former or None,
        )

    def take(self, message: ServerMessage) -> ServerMessage | None:
        """What of a message is new to this subscription."""
        match message:
            case Subscribed():
                self._waits = self.tail is not None
            case Log():
                return self._take_log(message)
            case Places():
                self._take_places(message)
                return None
            case Attempt():
                return self._take_attempt(message)
            case Gap():
                self._take_gap(message)
            case CaughtUp():
                # A file that appears from now on is new, and wanted from its beginning.
                self.tail, self._waits = None, False
            case End():
                return self._take_end(message)
            case Object() | Event() | Gone():
                return None
        return message

    def _take_attempt(self, attempt: Attempt) -> Attempt | None:
        if attempt.container == self.container:
            return None  # told again on resuming
        if self.container is not None and not self._container_ended:
            self.former[self.container] = self.places
        self.container, self.places, self._container_ended = attempt.container, {}, False
        return attempt

    def _places_of(self, container: str | UnsetType) -> dict[str, tuple[int, int]] | None:
        return self.places if container == self.container else self.former.get(container or "")

    def _take_gap(self, gap: Gap) -> None:
        places = self._places_of(gap.container)
        if not gap.file:
            self.former.pop(gap.container or "", None)
        elif places is not None:
            places[gap.file] = (gap.epoch or 0, gap.to) if isinstance(gap.to, int) else _ANEW

    def _take_places(self, told: Places) -> None:
        places = self._places_of(told.container)
        if places is not None:
            places |= {file: (place.epoch, place.offset) for file, place in told.files.items()}
        self._waits = False

    def _take_log(self, log: Log) -> Log | None:
        places = self._places_of(log.container)
        if places is None or not self._wants(log.file):
            return None
        if self._waits and places is self.places and log.file not in places:
            return None  # for another subscription: ours is told its places first
        epoch, offset = places.get(log.file, (log.epoch, 0))
        if log.epoch > epoch:
            offset = 0  # a file that began anew is shown from its first byte
        if log.epoch < epoch or not log.offset <= offset < log.next:
            return None  # for another subscription to the same file, which is elsewhere
        if offset > log.offset:
            rest = log.data[offset - log.offset :]
            log = Log.of(log.container, log.file, log.epoch, offset, rest)
        places[log.file] = (log.epoch, log.next)
        return log

    def _wants(self, file: str) -> bool:
        return self.files is None or file in self.files

    def _take_end(self, end: End) -> End | None:
        if end.request:
            self.ended = self.ended or end.request == self.uuid
            return end if end.request == self.uuid else None
        if self._places_of(end.container) is None or (end.file and not self._wants(end.file)):
            return None
        if not end.file:
            self.former.pop(end.container or "", None)
            self._container_ended = self._container_ended or end.container == self.container
            self.ended = self.ended or end.container == self.uuid
        return end


def _from(places: Mapping[str, tuple[int, int]]) -> dict[str, From]:
    return {file: From(offset, epoch) for file, (epoch, offset) in places.items() if epoch >= 0}


@dataclass(slots=True)
class ObjectSubscription:
    """The state of one object, whenever it is another than the one with this `etag`."""

    uuid: str
    etag: str | None = None
    ended: bool = False

    def request(self) -> ObjectTarget:
        """The target to subscribe to now."""
        return ObjectTarget(self.uuid, self.etag)

    def take(self, message: ServerMessage) -> ServerMessage | None:
        """What of a message is new to this subscription."""
        match message:
            case Object():
                if message.uuid != self.uuid or message.etag == self.etag:
                    return None
                self.etag = message.etag
            case Log() | Event() | Gone() | End():
                return None
        return message


@dataclass(slots=True)
class EventsSubscription:
    """Changes of objects."""

    wanted: EventsTarget
    cursor: str | None = None
    ended: bool = False

    def request(self) -> EventsTarget:
        """The target to subscribe to now."""
        if self.cursor is None:
            return self.wanted
        return msgspec.structs.replace(self.wanted, cursor=self.cursor, begin="now")

    def take(self, message: ServerMessage) -> ServerMessage | None:
        """What of a message is new to this subscription."""
        match message:
            case Event(cursor=cursor) | Gone(cursor=cursor):
                self.cursor = cursor
            case CaughtUp(cursor=str(cursor)) | Gap(cursor=str(cursor)):
                self.cursor = cursor
            case Log() | Object() | End():
                return None
        return message


Subscription = LogSubscription | ObjectSubscription | EventsSubscription
