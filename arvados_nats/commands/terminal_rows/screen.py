# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The rows of a terminal of endless height and width, and its cursor.

Pure. Carriage returns, erasing and relative moves act within the last rows, since progress is drawn
with them. `web/src/terminal/screen.ts` says the same in TypeScript.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from arvados_nats.commands.terminal_rows.row import COLUMNS, ENDLESS, Row, tab_stop, width
from arvados_nats.commands.terminal_rows.style import PLAIN, Style, after
from arvados_nats.commands.terminal_rows.tokens import visible

REACH = 100
"""How many rows up the cursor can go."""
_WIDEST_MOVE = 255
"""A terminal's width as far as moves to the right are concerned."""
_LARGEST = 100_000
"""No number counts for more."""
_PRIVATE = re.compile("[<=>?]")
_OTHER_SCREEN = re.compile(r"\?(?:.*;)?(?:47|1047|1049)(?:;.*)?")


class Screen:
    """`rows` are those that the cursor can still reach; `left` is called with each other one."""

    def __init__(self, left: Callable[[Row], None]) -> None:
        self.rows: list[Row] = []
        self.highest = 0
        """How far above the last row something was written, at most, since it was set to 0."""
        self.touched: dict[Row, None] = {}
        """Rows that are new or were written to, until they are taken out of it."""
        self.style = PLAIN
        self._left = left
        self._at = 0
        self._column: int | None = None
        """None: at the end of the row."""
        self._saved: tuple[Row, int, Style] | None = None
        self._away = False
        """The cursor is somewhere on the screen where no log is: apt's bar at the bottom."""
        self._top: int | None = None
        """First row of the screen since it was cleared."""
        self._inserts = False
        """Text moves what stands behind the cursor."""
        self._shown = ""
        """The last character that was shown."""

    @property
    def fresh(self) -> bool:
        """Nothing stands in the last row: it is not one to show yet."""
        return not self.rows or (self.rows[-1].empty and not self.rows[-1].stamp)

    @property
    def adds(self) -> bool:
        """Text is added at the end of the row."""
        return self._column is None and not self._away

    @property
    def plain(self) -> bool:
        """Whether text begins a row in no look: then a plain line is shown as it is."""
        at_end = not self._away and self._at >= len(self.rows) - 1
        return self.style == PLAIN and at_end and self.fresh

    @property
    def _row(self) -> Row:
        if not self.rows:
            self._add_row()
        return self.rows[self._at]

    def touch(self) -> Row:
        """The row of the cursor, which is written to."""
        row = self._row
        self.highest = max(self.highest, len(self.rows) - 1 - self._at)
        self.touched[row] = None
        return row

    def _add_row(self) -> None:
        self.rows.append(Row())
        self.touched[self.rows[-1]] = None
        if len(self.rows) > 2 * REACH:
            gone = self.rows[:-REACH]
            del self.rows[:-REACH]
            for row in gone:
                self._left(row)
            if self._top is not None:
                self._top = max(0, self._top - len(gone))
        self._at, self._column = len(self.rows) - 1, None

    def line_feed(self) -> None:
        """The first column of the next row, which there is then."""
        self._away = False
        _ = self._row
        if self._at == len(self.rows) - 1:
            self._add_row()
        else:
            self._at, self._column = self._at + 1, 0

    def show(self, text: str) -> None:
        """Text in which nothing acts, at the cursor."""
        if self._away or not text:
            return
        self._shown = text[-1]
        row = self.touch()
        if self._column is not None and (
            self._column >= COLUMNS or (self._column == 0 and row.empty)
        ):
            self._column = None
        if self._column is None:
            row.append(text, self.style)
            return
        if self._inserts:
            row.shift(self._column, width(text))
        self._column = row.write(self._column, text, self.style)

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

    def _where(self) -> int:
        """The column of the cursor."""
        return self._row.width if self._column is None else self._column

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

    def _index(self) -> None:
        """One row down, also where there is none yet."""
        column = self._where()
        if self._at == len(self.rows) - 1:
            self._add_row()
        else:
            self._at += 1
        self._column = column

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
            self._place(count - 1, second)
        elif final == "d" and self._top is not None:
            self._place(count - 1, self._where() + 1)
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
            self.show(self._shown * min(count, _WIDEST_MOVE))

    def _insert_rows(self, count: int) -> None:
        """Blank rows at the cursor: what stands from there on goes down, as far as it reaches."""
        row = self._row
        more = min(count, REACH - (len(self.rows) - self._at))
        if more <= 0:
            return
        for _ in range(more):
            self._add_row()
        self._at = self.rows.index(row)
        for to in range(len(self.rows) - 1, self._at - 1, -1):
            self._replace(to, to - more)
        self._column = 0

    def _delete_rows(self, count: int) -> None:
        """What stands below comes up."""
        _ = self._row
        for to in range(self._at, len(self.rows)):
            self._replace(to, to + count)
        self._column = 0

    def _replace(self, to: int, source: int) -> None:
        """A row has what another one has that is not above the cursor, or nothing."""
        there = self._at <= source < len(self.rows)
        self.rows[to].take(self.rows[source] if there else Row())
        self.touched[self.rows[to]] = None
        self.highest = max(self.highest, len(self.rows) - 1 - to)

    def _go_to(self, column: int) -> None:
        self._column = min(max(0, column), max(self._row.width, _WIDEST_MOVE))

    def _vertical(self, rows: int, column: int | None = None) -> None:
        self._column = self._where() if column is None else column
        first = max(0, self._top or 0, len(self.rows) - REACH)
        self._at = min(max(self._at + rows, first), len(self.rows) - 1)

    def _place(self, row: int, second: int) -> None:
        """An absolute place is known only on a screen that was cleared."""
        if self._top is None:
            if self._saved:
                self._away = True
                return
            self._clear()
        below = max(self._top or 0, len(self.rows) - REACH) + row - (len(self.rows) - 1)
        # No screen is so high that it has more rows: its last one is meant.
        for _ in range(below if row < REACH else 0):
            self._add_row()
        self._at = len(self.rows) - 1 + min(0, below)
        self._column = min(max(0, second - 1), _WIDEST_MOVE)

    def _clear(self) -> None:
        """The screen is empty; what was on it stays as it is above."""
        if self.rows and not self.rows[-1].empty:
            self._add_row()
        _ = self._row
        self._at = self._top = len(self.rows) - 1
        self._column = 0

    def _erase_screen(self, how: int) -> None:
        if how in (2, 3):
            self._clear()
        if how > 1:
            return
        self._erase_in_row(how)
        # How far a screen goes up is known of one that was cleared.
        others = self.rows[self._at if self._top is None else self._top : self._at]
        for row in self.rows[self._at + 1 :] if how == 0 else others:
            row.erase(0, ENDLESS)
            self.touched[row] = None

    def _erase_in_row(self, how: int) -> None:
        column, row = self._where(), self.touch()
        if how == 0:
            row.erase(column, ENDLESS)
        elif how == 1:
            row.erase(0, column + 1)
        elif how == 2:
            row.erase(0, ENDLESS)
        self._column = column

    def _edit(self, final: str, count: int) -> None:
        """Take columns out, put blanks in, or blank them."""
        column, row = self._where(), self.touch()
        if final == "X":
            row.erase(column, column + count)
        else:
            row.shift(column, -count if final == "P" else min(count, _WIDEST_MOVE))
        self._column = column
