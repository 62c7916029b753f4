# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where a machine keeps its place in its system log: the last record that is in the stream.

A small file, written anew after each batch. The journal itself keeps what was not read, so this is
all that a restart needs.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import msgspec

from arvados_nats.errors import MALFORMED, ConfigError, said


class Place(msgspec.Struct, frozen=True):
    """`cursor` of the last record stored; empty: none yet.

    `source` names this folder's pipe, whose cursors are byte offsets.
    """

    source: str
    cursor: str = ""


class PlaceFile:
    """The file in a folder of ours; ConfigError says what is wrong with it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "place.json"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.is_new = not self._path.exists()
            self.place = self._read()
        except (*MALFORMED, OSError) as error:
            raise ConfigError(f"system_log_state: {self._path}: {said(error)}") from error

    def _read(self) -> Place:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Place)
        except FileNotFoundError:
            return Place(source=uuid.uuid4().hex)

    def save(self, place: Place) -> None:
        """Keep it, over a crash too."""
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(place))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        self.place, self.is_new = place, False


def is_of_a_journal(cursor: str) -> bool:
    """Whether it is a cursor of journald's; offsets of a pipe mean nothing without its folder."""
    return cursor.startswith("s=")


def is_up_to(cursor: str, last: str) -> bool:
    """Whether `cursor` is `last` or before it; False where that cannot be told."""
    (source, number), (last_source, last_number) = _split(cursor), _split(last)
    if number is None or last_number is None:
        return False
    return source == last_source and number <= last_number


def _split(cursor: str) -> tuple[str, int | None]:
    """What numbers records, and a record's number: a journal or a pipe; None if there is none."""
    try:
        if is_of_a_journal(cursor):
            parts = dict(part.split("=", 1) for part in cursor.split(";"))
            return f"s={parts['s']}", int(parts["i"], 16)
        name, _, offset = cursor.partition(":")
        return name, int(offset)
    except (KeyError, ValueError):
        return cursor, None
