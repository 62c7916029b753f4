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
from typing import Any

import msgspec

from terminal.messages import Attempt, CaughtUp, End, Event, Gap, Log, Message, Object


@dataclass(slots=True)
class LogSubscription:
    """Log files of a container, or of a container request and all its attempts.

    `files`: names, None for all. Each begins at byte 0, or `tail` lines before its end.
    `places` is (epoch, offset) of the next byte of each file of `container`.
    """

    uuid: str
    files: Sequence[str] | None = None
    tail: int | None = None
    container: str | None = None
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    ended: bool = False

    def __post_init__(self) -> None:
        if "-dz642-" in self.uuid:
            self.container = self.uuid

    def request(self) -> dict[str, Any]:
        """The target to subscribe to now."""
        log: dict[str, Any] = {"uuid": self.uuid}
        if self.files is not None:
            log["files"] = list(self.files)
        if self.tail is not None:
            log["tail"] = self.tail
        if self.container is not None and self.container != self.uuid:
            log["container"] = self.container
        if self.places:
            log["from"] = {
                file: {"epoch": epoch, "offset": offset}
                for file, (epoch, offset) in self.places.items()
            }
        return {"log": log}

    def take(self, message: Message) -> Message | None:
        """What of a message is new to this subscription."""
        match message:
            case Log():
                return self._take_log(message)
            case Attempt():
                if message.container == self.container:
                    return None  # told again on resuming
                self.container = message.container
                self.places.clear()
            case Gap(file=str(file), to=int(to)):
                self.places[file] = (message.epoch, to)
            case CaughtUp():
                # A file that appears from now on is new, and wanted from its beginning.
                self.tail = None
            case End():
                return self._take_end(message)
            case Object() | Event():
                return None
        return message

    def _take_log(self, log: Log) -> Log | None:
        if log.container != self.container or not self._wants(log.file):
            return None
        epoch, offset = self.places.get(log.file, (log.epoch, log.offset))
        if log.epoch < epoch:
            return None
        if log.epoch == epoch:
            if not log.offset <= offset < log.next:
                return None
            if offset > log.offset:
                rest = log.data[offset - log.offset :]
                log = msgspec.structs.replace(log, offset=offset, data=rest)
        self.places[log.file] = (log.epoch, log.next)
        return log

    def _wants(self, file: str) -> bool:
        return self.files is None or file in self.files

    def _take_end(self, end: End) -> End | None:
        if end.request is not None:
            self.ended = self.ended or end.request == self.uuid
            return end if end.request == self.uuid else None
        if end.container != self.container or (end.file and not self._wants(end.file)):
            return None
        if end.file is None and self.container == self.uuid:
            self.ended = True
        return end


@dataclass(slots=True)
class ObjectSubscription:
    """The state of one object, whenever it is another than the one with this `etag`."""

    uuid: str
    etag: str | None = None
    ended: bool = False

    def request(self) -> dict[str, Any]:
        """The target to subscribe to now."""
        known = {"etag": self.etag} if self.etag else {}
        return {"object": {"uuid": self.uuid, **known}}

    def take(self, message: Message) -> Message | None:
        """What of a message is new to this subscription."""
        match message:
            case Object():
                if message.uuid != self.uuid or message.etag == self.etag:
                    return None
                self.etag = message.etag
            case Log() | Event() | End():
                return None
        return message


@dataclass(slots=True)
class EventsSubscription:
    """Changes of objects. `filters`: owners, objects, kinds, event_types, cursor, begin."""

    filters: Mapping[str, Any] = field(default_factory=dict)
    cursor: str | None = None
    ended: bool = False

    def request(self) -> dict[str, Any]:
        """The target to subscribe to now."""
        if self.cursor is None:
            return {"events": dict(self.filters)}
        filters = {name: value for name, value in self.filters.items() if name != "begin"}
        return {"events": {**filters, "cursor": self.cursor}}

    def take(self, message: Message) -> Message | None:
        """What of a message is new to this subscription."""
        match message:
            case Event() | CaughtUp(cursor=str()) | Gap(cursor=str()):
                self.cursor = message.cursor
            case Log() | Object() | End():
                return None
        return message


Subscription = LogSubscription | ObjectSubscription | EventsSubscription
