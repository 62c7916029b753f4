# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Runs of bytes of a container's log files, as they travel in the stream ARVADOS_LOGS.

Pure. **The byte offset in the log file is the cursor everywhere**: it is the same in the stream, in
the controller's log API and in Keep. A chunk joins the one before it when its offset is that one's
offset plus length, in the same epoch; anything else is a gap, and is filled or told, never hidden.
An epoch counts how often the file began anew (it shrank). No timestamp is ever a cursor
(docs/facts/arvados-demand.md G6, G7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.errors import MALFORMED, BadInput

MAX_CHUNK_BYTES = 64 * 1024
MAX_MESSAGE = MAX_CHUNK_BYTES + 4 * 1024
"""Bytes of a chunk or an end marker with its headers."""
MAX_COUNT = 2**53 - 1
"""The largest epoch, offset and size: what a browser can count."""

_MAX_NAME = 255
_SUBJECT = re.compile(r"arvados\.(?:(?:stored\.)?logs|live\.(?:[^.]+\.){2,3}log)\.([^.]+)\.([^.]+)")

_FILE = "Arvados-File"
_OFFSET = "Arvados-Offset"
_EPOCH = "Arvados-Epoch"
_END = "Arvados-End"
_SOURCE = "Arvados-Source"
_PUSHED = "push"

END_TOKEN = "end"
"""The last token of the end marker's subject."""
USUAL_FILES = (
    *("arv-mount.txt", "crunch-run.txt", "crunchstat.txt", "hoststat.txt", "keepstore.txt"),
    *("container.json", "node.json", "node-info.txt", "stderr.txt", "stdout.txt"),
)
"""Those of crunch-run; whoever has a container's token may name more."""


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


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class FileEnd(msgspec.Struct, frozen=True):
    """Final size of one file in bytes, and whether the saved log collection confirms it."""

    epoch: _Count
    size: _Count
    confirmed: bool


class ContainerEnd(msgspec.Struct, frozen=True):
    """No more bytes will come for a container. `state` is its final state."""

    container_uuid: str
    state: str
    exit_code: int | None
    files: dict[str, FileEnd]

    @property
    def subject(self) -> str:
        return subjects.log(self.container_uuid, END_TOKEN)

    @property
    def headers(self) -> dict[str, str]:
        return {"Nats-Msg-Id": f"{self.container_uuid}/end", _END: "1"}

    @property
    def payload(self) -> bytes:
        return msgspec.json.encode(self)


_end_decoder = msgspec.json.Decoder(ContainerEnd)


def parse(subject: str, headers: Mapping[str, str] | None, payload: bytes) -> Chunk | ContainerEnd:
    """The chunk or end in a message of `arvados.logs.…`, stored or live; BadInput if neither.

    A container may publish what it likes below its own subject but for the end marker's, so the
    subject alone says what it is, and what a message says of itself has to fit.
    """
    headers = headers or {}
    try:
        container_uuid, token = _place(subject)
        if token == END_TOKEN:
            return _end(payload, container_uuid)
        return _chunk(headers, payload, container_uuid, token)
    except (*MALFORMED, KeyError, ValueError) as error:
        raise BadInput(f"not a log chunk on {subject}: {error}") from error


def _place(subject: str) -> tuple[str, str]:
    """Container and file token of a subject, which has no more: a container may choose the rest."""
    found = _SUBJECT.fullmatch(subject)
    if found is None:
        raise ValueError("not the subject of a log")
    return found[1], found[2]


def _end(payload: bytes, container_uuid: str) -> ContainerEnd:
    _require_size(payload)
    end = _end_decoder.decode(payload)
    if end.container_uuid != container_uuid:
        raise ValueError("the end of another container")
    return end


def _chunk(headers: Mapping[str, str], data: bytes, container_uuid: str, token: str) -> Chunk:
    file = headers[_FILE]
    require_usable(file)
    _require_size(data)
    if subjects.file_token(file) != token:
        raise ValueError("the bytes of another file")
    epoch, offset = _count(headers[_EPOCH]), _count(headers[_OFFSET])
    if offset + len(data) > MAX_COUNT:
        raise ValueError("an offset beyond all files")
    pushed = headers.get(_SOURCE) == _PUSHED
    return Chunk(container_uuid, file, epoch, offset, data, pushed)


def _require_size(data: bytes) -> None:
    if len(data) > MAX_CHUNK_BYTES:
        raise ValueError(f"{len(data)} bytes are more than a message may have")


def _count(text: str) -> int:
    """A number from 0 to `MAX_COUNT`, as it stands in a header."""
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(MAX_COUNT)):
        raise ValueError(f"not a count: {text[:20]!r}")
    number = int(text)
    if number > MAX_COUNT:
        raise ValueError(f"too large a count: {number}")
    return number


def require_usable(name: str) -> None:
    """BadInput for a file name that cannot stand in a header, stands for the end marker, or leads
    out of the log's folder: its bytes are asked of Arvados by that name."""
    plain = name == name.strip() and name.isprintable() and len(name.encode()) <= _MAX_NAME
    if not name or not plain or name in (END_TOKEN, ".", "..") or "/" in name:
        raise BadInput(f"unusable name of a log file: {name[:_MAX_NAME]!r}")


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
