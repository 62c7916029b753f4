# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What an answer of `arvados.api.logs` is made of: bytes, gaps, list of files, end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from arvados_nats.contract import answers, log_chunks, subjects
from arvados_nats.contract.answers import Part
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from wsproxy.logs.pieces import Found
from wsproxy.logs.place import LogPlace
from wsproxy.native_api import reply as native_reply

FILE, OFFSET, EPOCH = "Arvados-File", "Arvados-Offset", "Arvados-Epoch"
CONTAINER, ATTEMPT = "Arvados-Container", "Arvados-Attempt"
LIVE = "Arvados-Live"
"""Subject of the same file as it grows; of the list, of all files."""
ENDED = "Arvados-Ended"
"""On the end: `true` if the container is over and the file will not grow."""
LOG_PATH = "Arvados-Log-Path"
"""On a gap: where Arvados' log API has the bytes; ask with `Range` and a token of one's own."""


@dataclass(frozen=True, slots=True)
class Log:
    """The log of one container, as the asker may read it.

    `shown` is the request that shows it, with the subject tokens of share point and owner before
    it; None to an admin who sees the container alone. `over`: no more bytes will come.
    """

    container: str
    attempt: int | None
    shown: tuple[str, str, str] | None
    state: str | None
    attempts: dict[str, int]
    files: dict[str, LogPlace]
    end: ContainerEnd | None
    over: bool

    @property
    def headers(self) -> dict[str, str]:
        """Which container it is, on every message."""
        attempt = {ATTEMPT: str(self.attempt)} if self.attempt else {}
        return {CONTAINER: self.container, **attempt}

    def path(self, file: str) -> dict[str, str]:
        """Where Arvados' log API has a file."""
        if self.shown is None:
            return {}
        folder = f"/arvados/v1/container_requests/{self.shown[2]}/log/{self.container}"
        return {LOG_PATH: f"{folder}/{quote(file)}"}

    def live(self, file: str | None) -> dict[str, str]:
        """Where a file, or all of them, can be heard as it grows."""
        if self.shown is None:
            return {}
        subject = subjects.live_log(*self.shown, self.container, file or "")
        return {LIVE: subject if file else f"{subject.rpartition('.')[0]}.*"}


class Reading:
    """How far the reading of one file has come."""

    def __init__(self, log: Log, file: str, place: LogPlace, max_bytes: int) -> None:
        self.log = log
        self.file = file
        self.place = place
        self.more = False
        """There is not room for all of it in this answer."""
        self._bytes_left = max_bytes

    @property
    def ended(self) -> bool:
        """Whether all was read that there will ever be."""
        return self.log.over and not self.more

    @property
    def is_behind(self) -> bool:
        """Whether the stream is known to have more: the replica that was asked is late."""
        known = self.log.files.get(self.file)
        return not self.more and known is not None and self.place < known

    def take(self, found: Found, *, joined: bool) -> list[Part]:
        """The messages for what a page holds from `place` on; moves `place`."""
        data = found.data[: self._bytes_left]
        parts = []
        for piece in log_chunks.cut(data):
            place = self.place
            chunk = Chunk(self.log.container, self.file, place.epoch, place.offset, piece)
            parts.append(Part(piece, {**chunk.headers, **self.log.headers}))
            self.place = LogPlace(place.epoch, chunk.end)
        self._bytes_left -= len(data)
        self.more = len(data) < len(found.data) or self._bytes_left <= 0
        if not self.more and found.met is not None:
            reached = found.touched and (joined or self.place.offset > 0)
            parts += self._over_to(found.met, seen=reached)
        return parts

    def _over_to(self, met: LogPlace, *, seen: bool) -> list[Part]:
        """Go on where the stream does, and tell what lies between."""
        before, self.place = self.place, met
        if met.epoch == before.epoch:
            return [self._gap(before, met.offset)]
        return [] if seen else [self._gap(before, None)]

    def rest(self) -> list[Part]:
        """What is known to be in the file, or may be, and is not in the stream."""
        if self.more or not self.log.over:
            return []
        last = self.log.end.files.get(self.file) if self.log.end else None
        if last is None:
            return [] if self.log.end else [self._gap(self.place, None)]
        if last.epoch != self.place.epoch or last.size <= self.place.offset:
            return []
        before, self.place = self.place, LogPlace(last.epoch, last.size)
        return [self._gap(before, last.size)]

    def _gap(self, place: LogPlace, to: int | None) -> Part:
        border = "" if to is None else str(to)
        return Part(
            headers={
                answers.GAP: f"{place.offset}-{border}",
                FILE: self.file,
                EPOCH: str(place.epoch),
                **self.log.path(self.file),
                **self.log.headers,
            }
        )


def listing(log: Log) -> bytes:
    """The list of files as JSON."""
    sizes = {name: place.offset for name, place in log.files.items()}
    ends = log.end.files if log.end else {}
    return msgspec.json.encode(
        {
            "container": log.container,
            "request": log.shown[2] if log.shown else None,
            "live": log.live(None).get(LIVE),
            "attempt": log.attempt,
            "attempts": log.attempts,
            "state": log.state,
            "files": {
                name: {
                    "epoch": (ends[name] if name in ends else log.files[name]).epoch,
                    "size": ends[name].size if name in ends else sizes[name],
                }
                for name in sorted({*sizes, *ends})
            },
            "ended": log.over,
        }
    )


def end(log: Log, file: dict[str, str], place: LogPlace, *, more: bool, ended: bool) -> Part:
    """The last message: where to go on, and whether there is more, now or ever."""
    return Part(
        headers={
            answers.END: str(place.offset),
            answers.MORE: native_reply.flag(more),
            ENDED: native_reply.flag(ended),
            EPOCH: str(place.epoch),
            **file,
            **log.live(file.get(FILE)),
            **log.headers,
        }
    )
