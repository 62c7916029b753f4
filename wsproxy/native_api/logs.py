# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados.api.logs`: the bytes of a log file that the stream holds, for a native client.

Chunks from an offset on, each with the headers of `log_chunks`, then where to go on. What the
stream does not hold any more is told as a gap with its borders and with the path of Arvados' log
API, where the client reads it with its own token; none is here. Who may read is decided by the
rule, without include_trash, on what the database says of the container now (`runs_wire`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta

from arvados_nats.contract import answers, log_chunks, subjects
from arvados_nats.contract.answers import Part
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.errors import BadInput
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import run_messages
from arvados_nats.permission_client.run_messages import Run
from arvados_nats.permissions.judge import Judge
from arvados_nats.protocol_v1.requests import Offset, Text
from wsproxy.logins.readable import covers_logs
from wsproxy.logs import end as log_end
from wsproxy.logs.history import LATE_PAUSES
from wsproxy.logs.pieces import After, Found, join
from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import ContainerState
from wsproxy.logs.stored import StoredLogs
from wsproxy.native_api import reply as native_reply
from wsproxy.native_api.reply import DEFAULT_BYTES, GetJudge
from wsproxy.objects import history as object_history

FILE, OFFSET, EPOCH = "Arvados-File", "Arvados-Offset", "Arvados-Epoch"
CONTAINER, ATTEMPT = "Arvados-Container", "Arvados-Attempt"
LIVE = "Arvados-Live"
"""Subject of the same file as it grows; of the list, of all files."""
ENDED = "Arvados-Ended"
"""On the end: `true` if the container is over and the file will not grow."""
LOG_PATH = "Arvados-Log-Path"
"""On a gap: where Arvados' log API has the bytes; ask with `Range` and a token of one's own."""

_EXAMPLE = '{"uuid": "zzzzz-xvhdp-0123456789abcde", "file": "stdout.txt", "offset": 0}'
_PAGES = 1000


class LogsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place in a log file of a container, or of a container request.

    Without `file` the answer lists the files. Without `epoch` the file is meant as it is now. A
    request's present container is read, or an earlier one that is named as `container`.
    """

    uuid: Text
    file: Text | None = None
    offset: Offset = 0
    epoch: Offset | None = None
    container: Text | None = None
    max_bytes: Annotated[int, Meta(ge=1, le=native_reply.MAX_BYTES)] = DEFAULT_BYTES


@dataclass(frozen=True, slots=True)
class _Log:
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


class NativeLogs:
    """Answers for `arvados.api.logs`."""

    def __init__(self, nats: Nats, stored: StoredLogs) -> None:
        self._nats = nats
        self._stored = stored

    async def answer(self, payload: bytes, get_judge: GetJudge) -> AsyncIterator[Part]:
        """Bytes of a file and gaps in order, or the list of files; then the end."""
        asked = native_reply.request(payload, LogsRequest, _EXAMPLE)
        _check(asked)
        log = await self._log(asked, await get_judge())
        if log.end is None and not log.over:
            await self._nats.publish(subjects.log_interest(log.container))
        if asked.file is None:
            yield Part(_listing(log), log.headers)
            yield _end(log, {}, LogPlace(0, 0), more=False, ended=log.over)
            return
        reading = _Reading(log, asked.file, self._place(asked, log), asked.max_bytes)
        async for part in self._read(reading):
            yield part
        for part in reading.rest():
            yield part
        file = {FILE: asked.file}
        yield _end(log, file, reading.place, more=reading.more, ended=reading.ended)

    def _place(self, asked: LogsRequest, log: _Log) -> LogPlace:
        known = log.files.get(asked.file or "")
        present = known.epoch if known else 0
        return LogPlace(present if asked.epoch is None else asked.epoch, asked.offset)

    async def _read(self, reading: _Reading) -> AsyncIterator[Part]:
        log, file, late = reading.log, reading.file, iter(LATE_PAUSES)
        for _ in range(_PAGES):
            place = reading.place
            page = await self._stored.page(log.container, file, place)
            found = join(page, place, None)
            for part in reading.take(found, joined=page.joined):
                yield part
            if found.after is After.DRY and reading.is_behind:
                if (pause := next(late, None)) is not None:
                    await asyncio.sleep(pause)
                    continue
            if reading.more or found.after is After.DRY:
                self._stored.remember(log.container, file, reading.place, page)
                return
            if found.data:
                self._stored.remember(log.container, file, reading.place, page)
            elif found.after is After.MORE:
                self._stored.skip(log.container, file, place, page)
        reading.more = True

    async def _log(self, asked: LogsRequest, judge: Judge) -> _Log:
        """The log that is asked for; Refused if there is none for the asker."""
        run = await self._run(asked.uuid)
        shown = _shown(run, asked.uuid, judge)
        container, attempts = run.container_uuid, {}
        if shown and shown[2] == asked.uuid:
            attempts = await object_history.attempts(self._nats, asked.uuid)
            if container:
                attempts[container] = run.attempt or 1
            container = asked.container or container
            if container not in attempts:
                raise native_reply.not_readable()
        if container is None:
            raise native_reply.not_readable()
        if container != run.container_uuid:
            run = await self._run(container)
        files: dict[str, LogPlace] = {}
        end: ContainerEnd | None = None
        for _, last in await self._stored.last(container):
            if isinstance(last, Chunk):
                files[last.file] = LogPlace(last.epoch, last.end)
            else:
                end = last
        return _Log(
            container,
            attempts.get(container),
            shown,
            run.state,
            attempts,
            files,
            end,
            end is not None or _is_over(run),
        )

    async def _run(self, uuid: str) -> Run:
        answer = await self._nats.request(subjects.RUNS_GET, uuid.encode())
        return run_messages.decode(answer.headers, answer.data)


def _check(asked: LogsRequest) -> None:
    kind = subjects.kind_of(asked.uuid)
    if kind is None or kind.name not in ("container", "container_request"):
        raise BadInput("uuid: name a container or a container request, others have no logs")
    if asked.container is not None and kind.name == "container":
        raise BadInput("container: goes with the uuid of a container request; leave it out")
    if asked.file is not None and not (asked.file and asked.file.isprintable()):
        raise BadInput("file: send the name of a log file, such as stdout.txt")


def _shown(run: Run, uuid: str, judge: Judge) -> tuple[str, str, str] | None:
    """The request through which the asker may read the log, behind the share point and the owner
    below which it is heard; None for an admin without one.

    Raises Refused where they may not.
    """
    facts = run.facts
    if facts is None:
        raise native_reply.not_readable()
    by_request = facts.kind == "container_request"
    request = uuid if by_request else None
    if not covers_logs(judge.identity.scopes, request, run.container_uuid):
        raise native_reply.not_readable()
    if not judge.allows(facts):
        raise native_reply.not_readable()
    shown = [(facts.owner_uuid, uuid)] if by_request else judge.requests_shown(facts)
    if not shown:
        return None
    owner, found = shown[0]
    return judge.heard_at(facts, found, owner), "*", found


def _is_over(run: Run) -> bool:
    """Whether nothing more of it will come to the stream, which has no end of it."""
    state = ContainerState(run.state or "", run.exit_code, run.log, run.finished_at)
    return log_end.certain(state, heard=True)


class _Reading:
    """How far the reading of one file has come."""

    def __init__(self, log: _Log, file: str, place: LogPlace, max_bytes: int) -> None:
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


def _listing(log: _Log) -> bytes:
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


def _end(log: _Log, file: dict[str, str], place: LogPlace, *, more: bool, ended: bool) -> Part:
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
