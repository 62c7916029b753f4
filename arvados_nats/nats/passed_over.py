# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Messages of a stream that a reader could not process and went past, for `check streams`.

Pure. The reader keeps them as a header of its cursor, so that its successor goes on counting and
nothing else has to be stored. What a sender wrote is cut and escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from arvados_nats.errors import MALFORMED
from arvados_nats.nats.history import StoredMessage

_HEADER = "Arvados-Passed-Over"
_KEPT = 4
_LONGEST_TEXT = 120


class Passed(msgspec.Struct, frozen=True):
    """One of them: its place in the stream, its size, and why it could not be processed."""

    sequence: int
    time: str
    subject: str
    bytes: int
    why: str

    def __str__(self) -> str:
        return f"{self.sequence} ({self.time}) {self.subject}, {self.bytes} bytes: {self.why}"


class PassedOver(msgspec.Struct, frozen=True):
    """How many there were, and the last few."""

    count: int = 0
    last: tuple[Passed, ...] = ()

    def and_(self, message: StoredMessage, why: object) -> PassedOver:
        """With one more."""
        place, size = message.sequence, len(message.data)
        passed = Passed(place, message.time, _cut(message.subject), size, _cut(str(why)))
        return PassedOver(self.count + 1, (*self.last, passed)[-_KEPT:])

    @property
    def headers(self) -> dict[str, str]:
        """Headers that `read` understands; none while there is nothing to tell."""
        return {_HEADER: json.dumps(msgspec.to_builtins(self))} if self.count else {}


def read(headers: Mapping[str, str]) -> PassedOver:
    """What the headers of a cursor tell."""
    try:
        return msgspec.json.decode(headers.get(_HEADER, "{}"), type=PassedOver)
    except MALFORMED:
        return PassedOver()


def _cut(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:_LONGEST_TEXT]
