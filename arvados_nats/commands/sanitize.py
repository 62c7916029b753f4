# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Text of a log as a terminal may show it: colours stay, nothing else acts.

Pure. A log is written by anybody's program, so what would move the cursor, set the title, ring the
bell or turn the text around is left out or made visible. Only SGR sequences (`ESC [ … m`) pass,
and a line never leaves its colours to what follows it; the next line of its file takes them up.
"""

from __future__ import annotations

import re

RESET = "\x1b[0m"

_ACTING = re.compile(
    "\x1b(?:"
    "\\[[0-?]*[ -/]*[@-~]"  # CSI, of which SGR is one
    "|[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)"  # OSC and other strings, up to their end
    "|[@-OQ-WYZ\\\\]"  # two-character sequences
    ")"
    "|[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
_SGR = re.compile("\x1b\\[[0-9;:]*m")
_AFRESH = re.compile("\x1b\\[0*[;m]")
_LONGEST_STYLE = 64
"""Characters of colours that are carried to the next line."""


def overwritten(line: str) -> str:
    """What a terminal would show of a line with carriage returns: the last that was written."""
    if "\r" not in line:
        return line
    return next((part for part in reversed(line.split("\r")) if part), "")


def text_of(data: bytes) -> str:
    """Text of bytes; what is not UTF-8 is shown as `\\xNN`."""
    return data.decode("utf-8", "backslashreplace")


class Harmless:
    """The lines of one file, made harmless one after the other."""

    def __init__(self, *, colours: bool = True) -> None:
        self._colours = colours
        self._style = ""

    def line(self, data: bytes) -> str:
        """What to show of a line, which is given without its line end."""
        text = text_of(data)
        if not self._style and text.isprintable():
            return text
        shown = _ACTING.sub(self._made_safe, overwritten(text))
        if not self._style and "\x1b" not in shown:
            return shown
        before, self._style = self._style, _style_after(self._style, shown)
        return f"{before}{shown}{RESET}"

    def _made_safe(self, found: re.Match[str]) -> str:
        """A sequence stays if it is a colour; a single character is made visible."""
        if len(found[0]) == 1:
            return _visible(ord(found[0]))
        return found[0] if self._colours and _SGR.fullmatch(found[0]) else ""


def _visible(code: int) -> str:
    if code < 0x20:
        return f"^{chr(code + 0x40)}"
    return "^?" if code == 0x7F else f"<U+{code:04X}>"


def _style_after(style: str, shown: str) -> str:
    """The colours in force at the end of a line that begins in `style`."""
    for sequence in _SGR.findall(shown):
        afresh = _AFRESH.match(sequence)
        style = sequence if afresh else style + sequence
        if afresh and afresh[0] == sequence:
            style = ""
    return style if len(style) <= _LONGEST_STYLE else ""
