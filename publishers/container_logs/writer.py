# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Write the log of one container to the stream ARVADOS_LOGS, each byte once.

The stream itself says how far a file has come: a writer starts from the last message of the file's
subject, and every write names the sequence it expects to be the last
(`Nats-Expected-Last-Subject-Sequence`). So a second writer, a retry after a lost acknowledgement
and a replica that was thought dead can neither double nor skip a byte; the one who comes second is
`Fenced` and told where the file stands now. While NATS is away a write waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from arvados_nats.contract import log_chunks, streams, subjects
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable, said
from arvados_nats.nats.acks import Ack, JetStreamError
from arvados_nats.nats.client import Nats
from arvados_nats.nats.history import StoredMessage
from arvados_nats.nats.lives import Life
from arvados_nats.service.ops import Health
from publishers.container_logs import file as log_file
from publishers.container_logs import metrics as log_metrics
from publishers.container_logs.file import Stored

logger = logging.getLogger(__name__)

_ACK_SECONDS = 3.0
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 2.0
_MAX_FILES = 256
"""Files of one container that are looked up at its end; crunch-run writes about ten."""
_MAX_OTHERS = 1000
"""Messages of a subject looked at for the last one of a file: a container may store any number."""

_EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_STREAM = "Nats-Expected-Stream"
_MESSAGE_ID = "Nats-Msg-Id"


class Fenced(ArvadosNatsError):
    """Somebody else has written to this file; `last` is where it stands now."""

    def __init__(self, last: Stored) -> None:
        super().__init__()
        self.last = last


class Lost(Unavailable):
    """The stream of logs is another one than before."""


class LogWriter:
    """The one who writes to the files of `container_uuid`, as far as it knows.

    With the `life` of the stream it does not go on in the middle of a file in another.
    """

    def __init__(
        self,
        nats: Nats,
        container_uuid: str,
        life: Life | None = None,
        health: Health | None = None,
    ) -> None:
        self.container_uuid = container_uuid
        self._life = life
        self._health = health
        self._why = ""
        self._told = False
        self._nats = nats
        self._sequences: dict[str, int] = {}
        self._ours: dict[str, int] = {}
        """By the name of a file, the sequence before which none of its messages is the last."""

    async def last(self, file: str) -> Stored:
        """Where a file stands in the stream; later writes build on this."""
        subject = subjects.log(self.container_uuid, file)
        message = await self._nats.last(streams.LOGS, subject)
        self._sequences[subject] = message.sequence if message else 0
        if message is None:
            return Stored()
        last = _read(message, file)
        if last is not None:
            return last
        found = await self._last_among_others(subject, file)
        if found is None:
            found = log_file.stored_rubbish(message.sequence)
        self._ours[file] = found.sequence
        return found

    async def _last_among_others(self, subject: str, file: str) -> Stored | None:
        """For two names that make the same subject, such as `a.b` and `a_b`; None where there are
        too many messages to look at."""
        found, count = Stored(), 0
        first = self._ours.get(file) or 1
        async for message in self._nats.history(streams.LOGS, subject, first=first):
            found = _read(message, file) or found
            count += 1
            if count == _MAX_OTHERS:
                return None
        return found

    async def append(self, chunk: Chunk) -> None:
        """Store a chunk that continues its file; Fenced if the file stands elsewhere by now.

        Waits while NATS is away.
        """
        with self._well_after():
            delay = _FIRST_DELAY
            while True:
                ack = await self._try(chunk.subject, chunk.data, chunk.headers)
                if ack is not None:
                    self._sequences[chunk.subject] = self._ours[chunk.file] = ack["seq"]
                    break
                log_metrics.RETRIES.inc()
                if await self._is_stored(chunk):
                    break
                delay = await self._later(delay)
        log_metrics.CHUNKS.inc()
        log_metrics.BYTES.inc(len(chunk.data))

    async def _is_stored(self, chunk: Chunk) -> bool:
        """Whether a write of unknown outcome succeeded; False if it is to be tried again."""
        followed = self._sequences.get(chunk.subject, 0)
        try:
            last = await self.last(chunk.file)
            if followed and not last.sequence:
                await self._require_same_stream()
        except Lost:
            raise
        except Unavailable:
            return False
        if last.holds(chunk):
            return True
        if last.pushed == chunk.pushed and last.is_before(chunk):
            return False
        log_metrics.FENCED.inc()
        raise Fenced(last)

    @contextlib.contextmanager
    def _well_after(self) -> Iterator[None]:
        """What is wrong with a write is over with it, however it ends; not what another told."""
        try:
            yield
        finally:
            if self._health is not None and self._told:
                self._health.well(streams.LOGS)
            self._told = False

    async def _later(self, delay: float) -> float:
        """Wait before the next try, longer each time; health says so where it lasts."""
        if delay == _LONGEST_DELAY and self._health is not None:
            self._health.fault(streams.LOGS, f"bytes of logs are not stored: {self._why}")
            self._told = True
        while True:  # what is sent while the stream has no leader waits for seconds in vain
            with contextlib.suppress(Unavailable):
                await streams.created(self._nats, streams.LOGS)
                break
            await asyncio.sleep(_FIRST_DELAY)
        await asyncio.sleep(delay)
        return min(delay * 2, _LONGEST_DELAY)

    async def _require_same_stream(self) -> None:
        """Unavailable, until the part has begun anew, where the stream has lost what it had."""
        if self._life is not None and not await self._life.look():
            raise Lost

    async def _try(self, subject: str, data: bytes, headers: dict[str, str]) -> Ack | None:
        """The acknowledgement, or None if the server refused the message or did not answer.

        Sent without its id: those are the whole stream's, so that another container could use ours
        up, and the server would call a duplicate what it has not stored.
        """
        sent = {
            **{name: value for name, value in headers.items() if name != _MESSAGE_ID},
            _EXPECTED_STREAM: streams.LOGS,
            _EXPECTED_LAST: str(self._sequences.get(subject, 0)),
        }
        try:
            await self._nats.until_connected()
            future = await self._nats.publish_stored(subject, data, sent)
            async with asyncio.timeout(_ACK_SECONDS):
                return await future
        except (JetStreamError, Unavailable, TimeoutError) as error:
            self._why = said(error)
            logger.info(
                "log chunk not acknowledged",
                extra={
                    "action": "logs.unacknowledged",
                    "container_uuid": self.container_uuid,
                    "subject": subject,
                    "error": self._why,
                },
            )
            return None

    async def ended(self) -> ContainerEnd | None:
        """The end marker, if the stream has one."""
        subject = subjects.log(self.container_uuid, "end")
        message = await self._nats.last(streams.LOGS, subject)
        self._sequences[subject] = message.sequence if message else 0
        try:
            found = message and log_chunks.parse(subject, message.headers, message.data)
        except BadInput:
            return None
        return found if isinstance(found, ContainerEnd) else None

    async def end(self, end: ContainerEnd) -> None:
        """Store the end marker, unless there is one. Waits while NATS is away."""
        with self._well_after():
            delay = _FIRST_DELAY
            while await self._try(end.subject, end.payload, end.headers) is None:
                with contextlib.suppress(Unavailable):
                    if await self.ended():
                        return
                delay = await self._later(delay)

    async def files(self) -> dict[str, Stored]:
        """All files of the container that have bytes in the stream, and where they stand."""
        found: dict[str, Stored] = {}
        for message in await self._nats.last_of_each(streams.LOGS, await self._subjects()):
            with contextlib.suppress(BadInput):
                chunk = log_chunks.parse(message.subject, message.headers, message.data)
                if isinstance(chunk, Chunk):
                    found[chunk.file] = log_file.stored(message.sequence, chunk)
        return found

    async def _subjects(self) -> list[str]:
        pattern = subjects.logs_of(self.container_uuid)
        info = await self._nats.js_api(f"STREAM.INFO.{streams.LOGS}", {"subjects_filter": pattern})
        found = sorted(info["state"].get("subjects") or {})
        if len(found) > _MAX_FILES:
            logger.warning(
                "too many log files",
                extra={"action": "logs.files", "container_uuid": self.container_uuid},
            )
        return found[:_MAX_FILES]


def _read(message: StoredMessage, file: str) -> Stored | None:
    """What a message says about a file; None if it is another file's."""
    try:
        chunk = log_chunks.parse(message.subject, message.headers, message.data)
    except BadInput:
        return log_file.stored_rubbish(message.sequence)
    if not isinstance(chunk, Chunk) or chunk.file != file:
        return None
    return log_file.stored(message.sequence, chunk)
