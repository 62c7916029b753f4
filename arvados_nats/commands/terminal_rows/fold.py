# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The rows that bytes of a log make on a terminal, in order and in any cuts.

Pure. What draws within the last rows acts (`screen.py`); everything else that a terminal would do
is left out or made visible. `web/src/terminal/fold.ts` says the same in TypeScript; one table of
cases tests both.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

from arvados_nats.commands.terminal_rows import tokens
from arvados_nats.commands.terminal_rows.row import Row
from arvados_nats.commands.terminal_rows.screen import Screen


class Fold:
    """Give it bytes with `write`; `left` is called with each row that the cursor cannot reach."""

    def __init__(self, left: Callable[[Row], None] = lambda _: None) -> None:
        self.screen = Screen(left)
        self._held = ""
        self._line_begins = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    @property
    def plain(self) -> bool:
        """Whether what follows begins a row in no look: then a plain line is shown as it is."""
        return not self._held and self.screen.plain

    def write(self, data: bytes) -> None:
        """More of the file."""
        self._text(self._decoder.decode(data))

    def close(self) -> None:
        """Nothing follows: what was held back is shown."""
        rest = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        if rest:
            self._line(rest, ended=True)

    def _text(self, text: str) -> None:
        *lines, rest = text.split("\n")
        for line in lines:
            if line or self._held:
                self._line(line, ended=True)
            self.screen.line_feed()
            self._line_begins = True
        if rest:
            self._line(rest, ended=False)

    def _line(self, text: str, *, ended: bool) -> None:
        """A part of a line; what it begins with may be its time stamp."""
        if self._line_begins:
            text, self._held = self._held + text, ""
            found = tokens.STAMP.match(text)
            if found is None and not ended and tokens.STAMP_BEGUN.match(text):
                self._held = text
                return
            self._line_begins = False
            if found:
                self.screen.touch().stamp = found[1]
                text = text[found.end() :]
        self._part(text, ended=ended)

    def _part(self, text: str, *, ended: bool) -> None:
        text, self._held = self._held + text, ""
        if self.screen.adds and not tokens.SPECIAL.search(text):
            self.screen.show(text)
            return
        end = len(text) if ended else tokens.begun(text)
        self._held = text[end:]
        for token in tokens.TOKEN.finditer(text):
            if token.start() >= end:
                break
            if token["text"] is not None:
                self.screen.show(token["text"])
            elif token["final"] is not None:
                self.screen.sequence(token["parameters"], token["between"], token["final"])
            elif token["short"] is not None:
                self.screen.short(token["short"])
            elif token["acting"] is not None:
                self.screen.control(token["acting"])
