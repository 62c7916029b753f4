# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What text, characters that act and sequences do to the rows of a terminal.

Pure; the rows and the cursor are those of `grid`. `web/src/terminal/screen.ts` says the same as
both in TypeScript.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from arvados_nats.commands.terminal_rows.grid import WIDEST_MOVE, Grid
from arvados_nats.commands.terminal_rows.row import COLUMNS, Row, tab_stop
from arvados_nats.commands.terminal_rows.style import PLAIN, Style, after
from arvados_nats.commands.terminal_rows.tokens import visible

_LARGEST = 100_000
"""No number counts for more."""
_PRIVATE = re.compile("[<=>?]")
_OTHER_SCREEN = re.compile(r"\?(?:.*;)?(?:47|1047|1049)(?:;.*)?")


class Screen(Grid):
    """A terminal: give it what `tokens` finds in a log."""

    def __init__(self, left: Callable[[Row], None]) -> None:
        super().__init__(left)
        self.style = PLAIN
        self._saved: tuple[Row, int, Style] | None = None
        self._away = False
        """The cursor is somewhere on the screen where no log is: apt's bar at the bottom."""
        self._inserts = False
        """Text moves what stands behind the cursor."""
        self._shown = ""
        """The last character that was shown."""

    @property
    def adds(self) -> bool:
        """Text is added at the end of the row."""
        return self._column is None and not self._away

    @property
    def plain(self) -> bool:
        """Whether text begins a row in no look: then a plain line is shown as it is."""
        at_end = not self._away and self._at >= len(self.rows) - 1
        return self.style == PLAIN and at_end and self.fresh

    def line_feed(self) -> None:
        """The first column of the next row, which there is then."""
        self._away = False
        self._down()

    def show(self, text: str) -> None:
        """Text in which nothing acts, at the cursor."""
        if self._away or not text:
            return
        self._shown = text[-1]
        self._write(text, self.style, inserts=self._inserts)

    def control(self, character: str) -> None:
        """A character that moves the cursor, or would act in another way."""
        if character == "\r":
            self._column = 0
        elif character == "\b":
            self._column = max(0, self._where() - 1)
        elif character == "\t" and self._column is not None and self._column < self._row.width:
            self._column = tab_stop(self._column)
        elif character == "\t":
            self.show("\t")
        elif character not in "\x0e\x0f":
            self.show(visible(character))

    def short(self, sequence: str) -> None:
        """A sequence without parameters; what stands behind its ESC."""
        act = {
            "7": self._save,
            "8": self._restore,
            "M": lambda: self._vertical(-1),
            "D": self._index,
            "E": self.line_feed,
            "c": self._reset,
        }.get(sequence)
        if act:
            act()

    def _reset(self) -> None:
        """As a terminal that is switched on, with what was there above it."""
        self._away = False
        self._soften()
        self._clear()

    def _soften(self) -> None:
        self.style, self._inserts, self._saved = PLAIN, False, None

    def _save(self) -> None:
        self._saved = (self._row, self._where(), self.style)

    def _restore(self) -> None:
        self._away = False
        if self._saved and self._saved[0] in self.rows:
            row, self._column, self.style = self._saved
            self._at = self.rows.index(row)

    def sequence(self, parameters: str, between: str, final: str) -> None:
        """A sequence with parameters."""
        if between:
            if between == "!" and final == "p":
                self._soften()
        elif _PRIVATE.search(parameters):
            if final in "hl" and _OTHER_SCREEN.fullmatch(parameters):
                self._another()
        elif final == "m":
            self.style = after(self.style, parameters)
        elif not self._away or final == "u":
            numbers = [
                min(_LARGEST, int(part.partition(":")[0] or 0)) for part in parameters.split(";")
            ]
            self._move(final, numbers[0], numbers[1] if len(numbers) > 1 else 0)

    def _another(self) -> None:
        """The other screen of a terminal, or back from it: what was shown stays above, also what a
        terminal takes away."""
        self._away, self._saved = False, None
        self._clear()
        self._top = None

    def _move(self, final: str, first: int, second: int) -> None:
        count = max(1, first)
        if final in "AF":
            self._vertical(-count, 0 if final == "F" else None)
        elif final in "BeE":
            self._vertical(count, 0 if final == "E" else None)
        elif final in "CaD":
            self._go_to(self._where() + (-count if final == "D" else count))
        elif final in "G`":
            self._go_to(count - 1)
        elif final in "IZ":
            back = final == "Z"
            self._go_to(tab_stop(self._where() - back, 1 - count if back else count))
        elif final in "Hf":
            self._place(count - 1, second - 1)
        elif final == "d" and self._top is not None:
            self._place(count - 1, self._where())
        elif final in "su":
            (self._save if final == "s" else self._restore)()
        elif final in "hl" and first == 4:
            self._inserts = final == "h"
        else:
            self._change(final, first, count)

    def _change(self, final: str, first: int, count: int) -> None:
        """What alters what stands there."""
        if final in "JK":
            (self._erase_screen if final == "J" else self._erase_in_row)(first)
        elif final in "P@X":
            self._edit(final, count)
        elif final == "L":
            self._insert_rows(count)
        elif final == "M":
            self._delete_rows(count)
        elif final == "b" and self._shown and self._row.width < COLUMNS:
            self.show(self._shown * min(count, WIDEST_MOVE))

    def _place(self, row: int, column: int) -> None:
        """Who saved the cursor before goes somewhere else on a screen that is not known."""
        if self._top is None and self._saved:
            self._away = True
        else:
            super()._place(row, column)
