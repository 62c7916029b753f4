# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A place in the stream of events, and by what it is known to be of the same life of the stream.

Pure.
"""

from __future__ import annotations

import zlib

import msgspec


class EventCursor(msgspec.Struct, frozen=True, tag="e", array_like=True):
    """After message `sequence` of the stream of events that was created at `created`.

    Servers that have lost the messages of a stream alone make it anew with the same `created`. So
    it also says when message `seen`, the newest of then, was stored; 0: nobody knew.
    """

    created: str
    sequence: int
    seen: int = 0
    mark: int = 0


def mark(time: str) -> int:
    """The time of a stored message, in short."""
    return zlib.crc32(time.encode()) if time else 0
