# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Messages of a peer, put together from its frames. Pure."""

from __future__ import annotations

from websockets.frames import Frame, Opcode

from arvados_nats.errors import BadInput

MAX_FRAGMENTS = 128
"""Frames of one message: their number is bounded as well as their length."""
_UNIT_BYTES = 1024
_INVALID_DATA, _POLICY_VIOLATION = 1007, 1008


class BadFrames(BadInput):
    """The frames make no message; `code` is what the connection is closed with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def cost(frame: Frame) -> int:
    """Units of a `Pace`: one for each frame, of whatever kind, and one for each KiB in it."""
    return 1 + len(frame.data) // _UNIT_BYTES


class Fragments:
    """The message that is under way; their order is websockets' business."""

    __slots__ = ("_is_text", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._is_text = False

    def add(self, frame: Frame) -> str | bytes | None:
        """The message, if this frame ends it. BadFrames where it is none."""
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            if len(self._parts) >= MAX_FRAGMENTS:
                raise BadFrames(_POLICY_VIOLATION, "too many fragments")
            return None
        data, self._parts = b"".join(self._parts), []
        try:
            return data.decode() if self._is_text else data
        except UnicodeDecodeError as error:
            raise BadFrames(_INVALID_DATA, "not UTF-8") from error
