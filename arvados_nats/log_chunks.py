# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Runs of bytes of a container's log files, as they travel in the stream ARVADOS_LOGS.

Pure. **The byte offset in the log file is the cursor everywhere**: it is the same in the stream, in
the controller's log API and in Keep. A chunk joins the one before it when its offset is that one's
offset plus length, in the same epoch; anything else is a gap, and is filled or told, never hidden.
An epoch counts how often the file began anew (it shrank). No timestamp is ever a cursor
(facts/arvados-demand.md G6, G7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from arvados_nats import subjects
from arvados_nats.errors import MALFORMED, BadInput

MAX_CHUNK_BYTES = 64 * 1024

_FILE = "Arvados-File"
_OFFSET = "Arvados-Offset"
_EPOCH = "Arvados-Epoch"
_END = "Arvados-End"
_SOURCE = "Arvados-Source"
_PUSHED = "push"


@dataclass(frozen=True, slots=True)
class Chunk:
    """`data` begins at byte `offset` of `file` of `container_uuid`, in the file's `epoch`.

    `pushed`: the compute node sent it itself, the tailer did not read it.
    """

    container_uuid: str
    file: str
    epoch: int
    offset: int
    data: bytes
    pushed: bool = False

    @property
    def subject(self) -> str:
        return subjects.log(self.container_uuid, self.file)

    @property
    def end(self) -> int:
        """Offset of the first byte after this chunk."""
        return self.offset + len(self.data)

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Nats-Msg-Id": f"{self.container_uuid}/{self.file}/{self.epoch}/{self.offset}",
            _FILE: self.file,
            _OFFSET: str(self.offset),
            _EPOCH: str(self.epoch),
            **({_SOURCE: _PUSHED} if self.pushed else {}),
        }


class FileEnd(msgspec.Struct, frozen=True):
    """Final size of one file in bytes, and whether the saved log collection confirms it."""

    epoch: int
    size: int
    confirmed: bool


class ContainerEnd(msgspec.Struct, frozen=True):
    """No more bytes will come for a container. `state` is its final state."""

    container_uuid: str
    state: str
    exit_code: int | None
    files: dict[str, FileEnd]

    @property
    def subject(self) -> str:
        return subjects.log(self.container_uuid, "end")

    @property
    def headers(self) -> dict[str, str]:
        return {"Nats-Msg-Id": f"{self.container_uuid}/end", _END: "1"}

    @property
    def payload(self) -> bytes:
        return msgspec.json.encode(self)


_end_decoder = msgspec.json.Decoder(ContainerEnd)


def parse(subject: str, headers: Mapping[str, str] | None, payload: bytes) -> Chunk | ContainerEnd:
    """The chunk or end in a message of `arvados.logs.…`, stored or live; BadInput if neither.

    A container may publish what it likes below its own subject, so what a message says of itself
    has to fit the subject.
    """
    headers = headers or {}
    try:
        _, container_uuid, token = subject.rsplit(".", 2)
        if _END in headers:
            return _end(payload, container_uuid)
        return _chunk(headers, payload, container_uuid, token)
    except (*MALFORMED, KeyError, ValueError) as error:
        raise BadInput(f"not a log chunk on {subject}: {error}") from error


def _end(payload: bytes, container_uuid: str) -> ContainerEnd:
    end = _end_decoder.decode(payload)
    if end.container_uuid != container_uuid:
        raise ValueError("the end of another container")
    return end


def _chunk(headers: Mapping[str, str], data: bytes, container_uuid: str, token: str) -> Chunk:
    file = headers[_FILE]
    if subjects.file_token(file) != token:
        raise ValueError("the bytes of another file")
    epoch, offset = _count(headers[_EPOCH]), _count(headers[_OFFSET])
    pushed = headers.get(_SOURCE) == _PUSHED
    return Chunk(container_uuid, file, epoch, offset, data, pushed)


def _count(text: str) -> int:
    """A number that is not negative, as it stands in a header."""
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f"not a count: {text!r}")
    return int(text)


def cut(data: bytes, *, limit: int = MAX_CHUNK_BYTES) -> list[bytes]:
    """Cut bytes into chunks of at most `limit`, after a line end where there is one.

    Without a line end in reach, a UTF-8 character is not cut unless the file itself holds a broken
    one.
    """
    pieces = []
    start = 0
    while len(data) - start > limit:
        stop = data.rfind(b"\n", start, start + limit) + 1 or _character_start(data, start + limit)
        pieces.append(data[start:stop])
        start = stop
    if start < len(data):
        pieces.append(data[start:])
    return pieces


def _character_start(data: bytes, stop: int) -> int:
    """The last position at or up to 3 bytes before `stop` where a UTF-8 character begins."""
    for back in range(4):
        if data[stop - back] & 0xC0 != 0x80:
            return stop - back
    return stop
