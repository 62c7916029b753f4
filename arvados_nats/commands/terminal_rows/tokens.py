# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How text of a log is taken apart: plain text, sequences of a terminal, and what would act.

Pure. `web/src/terminal/tokens.ts` has the same expressions.
"""

from __future__ import annotations

import re

_LONGEST_STRING = 4096

_ACTS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
SPECIAL = re.compile(f"[{_ACTS}]")
"""What is not simply shown."""
_STRING = f"\x1b[\\]PX^_][^\x07\x1b\x9c\n]{{0,{_LONGEST_STRING}}}"
TOKEN = re.compile(
    f"(?P<text>[^\t{_ACTS}]+)"
    "|\x1b\\[(?P<parameters>[0-?]{0,64})(?P<between>[ -/]{0,4})(?P<final>[@-~])"
    f"|{_STRING}(?:[\x07\x9c]|\x1b\\\\|(?=\x1b))"
    "|\x1b(?P<short>[ -/]{0,4}[0-OQ-WYZ\\\\`-~])"
    "|(?P<acting>.)",
    re.DOTALL,
)
_OPEN = re.compile(f"(?:\x1b\\[[0-?]{{0,64}}[ -/]{{0,4}}|\x1b[ -/]{{0,4}}|{_STRING}\x1b?)\\Z")
"""The beginning of a sequence whose end may follow."""
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z) ", re.ASCII)
STAMP_BEGUN = re.compile(
    r"\d{1,4}(?:\Z|-(?:\Z|\d\d?(?:\Z|-(?:\Z|\d\d?(?:\Z|T[\d:]{0,8}(?:\.\d{0,9})?Z?\Z)))))", re.ASCII
)


def without_sequences(text: str) -> str:
    """The text alone, for who looks for something in it."""
    return TOKEN.sub(lambda found: found["text"] or found["acting"] or "", text)


def visible(character: str) -> str:
    """A control character as something to see."""
    code = ord(character)
    if code < 0x20:
        return f"^{chr(code + 0x40)}"
    return "^?" if code == 0x7F else f"<U+{code:04X}>"


def begun(text: str) -> int:
    """Where a sequence begins whose end may follow; the length of the text if none does."""
    found = _OPEN.search(text, max(0, len(text) - _LONGEST_STRING - 4))
    return len(text) if found is None else found.start()
