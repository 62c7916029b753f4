# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Messages to readers, encoded once each however many readers there are.

Pure. A frame from a server is not masked, so with no extension negotiated its bytes are the same on
every connection (RFC 6455 5.2, 5.3); docs/facts/realtime.md 2.3. All values are immutable: a shared
buffer that changed would corrupt the messages of others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import msgspec

_FIN_TEXT = 0x81
_ODD_LINE_ENDS = tuple((chr(code).encode(), b"\\u%04x" % code) for code in (0x85, 0x2028, 0x2029))
_encoder = msgspec.json.Encoder()


def head(length: int) -> bytes:
    """Header of an unmasked, final text frame whose payload has `length` bytes."""
    if length < 126:
        return bytes((_FIN_TEXT, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def text_frame(payload: bytes) -> bytes:
    """A whole WebSocket frame around one UTF-8 text."""
    return head(len(payload)) + payload


class Message:
    """One JSON text for any number of readers; each wire's form of it is made once, when asked."""

    __slots__ = ("_form", "_frame", "_sse", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._frame: bytes | None = None
        self._sse: bytes | None = None
        self._form: tuple[Hashable, bytes] = (None, b"")

    @property
    def frame(self) -> bytes:
        """As a WebSocket text frame."""
        frame = self._frame
        if frame is None:
            frame = self._frame = text_frame(self.text)
        return frame

    @property
    def sse(self) -> bytes:
        """As the data of one server-sent event, which has no line end inside.

        JSON escapes the line ends that count; those that only some clients take for one, as
        Python's splitlines does, are escaped here.
        """
        sse = self._sse
        if sse is None:
            text = self.text
            for character, escape in _ODD_LINE_ENDS:
                text = text.replace(character, escape)
            sse = self._sse = b"data: " + text + b"\n\n"
        return sse

    def form(self, key: Hashable, make: Callable[[bytes], bytes]) -> bytes:
        """As `make` frames the text, kept for whoever asks next with an equal `key`."""
        if self._form[0] != key:
            self._form = key, make(self.text)
        return self._form[1]

    def __len__(self) -> int:
        return len(self.text)


def message(value: Any) -> Message:
    """`value` (a msgspec Struct, dict, …) as one JSON message."""
    return Message(_encoder.encode(value))
