# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados.api.logs`: the bytes of a log file that the stream holds, for a native client.

Chunks from an offset on, each with the headers of `log_chunks`, then where to go on. What the
stream does not hold any more is told as a gap with its borders and with the path of Arvados' log
API, where the client reads it with its own token; none is here. Who may read is decided by the
rule, without include_trash, on what the database says of the container now (`run_messages`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta

from arvados_nats.contract import subjects
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
from wsproxy.logs.pieces import After, join
from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import ContainerState
from wsproxy.logs.stored import StoredLogs
from wsproxy.native_api import log_parts
from wsproxy.native_api import reply as native_reply
from wsproxy.native_api.log_parts import FILE, Log, Reading
from wsproxy.native_api.reply import DEFAULT_BYTES, GetJudge
from wsproxy.objects import history as object_history

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
            yield Part(log_parts.listing(log), log.headers)
            yield log_parts.end(log, {}, LogPlace(0, 0), more=False, ended=log.over)
            return
        reading = Reading(log, asked.file, self._place(asked, log), asked.max_bytes)
        async for part in self._read(reading):
            yield part
        for part in reading.rest():
            yield part
        file = {FILE: asked.file}
        yield log_parts.end(log, file, reading.place, more=reading.more, ended=reading.ended)

    def _place(self, asked: LogsRequest, log: Log) -> LogPlace:
        known = log.files.get(asked.file or "")
        present = known.epoch if known else 0
        return LogPlace(present if asked.epoch is None else asked.epoch, asked.offset)

    async def _read(self, reading: Reading) -> AsyncIterator[Part]:
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

    async def _log(self, asked: LogsRequest, judge: Judge) -> Log:
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
        return Log(
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
