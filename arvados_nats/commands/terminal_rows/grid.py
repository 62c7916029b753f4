# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The rows of a terminal of endless height and width, and the cursor in them.

Pure. Everything acts within the last rows, since progress is drawn with them.
"""

from __future__ import annotations

from collections.abc import Callable

from arvados_nats.commands.terminal_rows.row import COLUMNS, ENDLESS, Row, width
from arvados_nats.commands.terminal_rows.style import Style

REACH = 100
"""How many rows up the cursor can go."""
WIDEST_MOVE = 255
"""A terminal's width as far as moves to the right are concerned."""


class Grid:
    """`rows` are those that the cursor can still reach; `left` is called with each other one."""

    def __init__(self, left: Callable[[Row], None]) -> None:
        self.rows: list[Row] = []
        self.highest = 0
        """How far above the last row something was written, at most, since it was set to 0."""
        self.touched: dict[Row, None] = {}
        """Rows that are new or were written to, until they are taken out of it."""
        self._left = left
        self._at = 0
        self._column: int | None = None
        """None: at the end of the row."""
        self._top: int | None = None
        """First row of the screen since it was cleared."""

    @property
    def fresh(self) -> bool:
        """Nothing stands in the last row: it is not one to show yet."""
        return not self.rows or (self.rows[-1].empty and not self.rows[-1].stamp)

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

    def _where(self) -> int:
        """The column of the cursor."""
        return self._row.width if self._column is None else self._column

    def _write(self, text: str, style: Style, *, inserts: bool) -> None:
        """Text at the cursor; if it `inserts`, what stands behind the cursor moves."""
        row = self.touch()
        if self._column is not None and (
            self._column >= COLUMNS or (self._column == 0 and row.empty)
        ):
            self._column = None
        if self._column is None:
            row.append(text, style)
            return
        if inserts:
            row.shift(self._column, width(text))
        self._column = row.write(self._column, text, style)

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

    def _down(self) -> None:
        """The first column of the next row, which there is then."""
        _ = self._row
        if self._at == len(self.rows) - 1:
            self._add_row()
        else:
            self._at, self._column = self._at + 1, 0

    def _index(self) -> None:
        """One row down, also where there is none yet."""
        column = self._where()
        if self._at == len(self.rows) - 1:
            self._add_row()
        else:
            self._at += 1
        self._column = column

    def _vertical(self, rows: int, column: int | None = None) -> None:
        self._column = self._where() if column is None else column
        first = max(0, self._top or 0, len(self.rows) - REACH)
        self._at = min(max(self._at + rows, first), len(self.rows) - 1)

    def _go_to(self, column: int) -> None:
        self._column = min(max(0, column), max(self._row.width, WIDEST_MOVE))

    def _place(self, row: int, column: int) -> None:
        """An absolute place is known only on a screen that was cleared."""
        if self._top is None:
            self._clear()
        below = max(self._top or 0, len(self.rows) - REACH) + row - (len(self.rows) - 1)
        # No screen is so high that it has more rows: its last one is meant.
        for _ in range(below if row < REACH else 0):
            self._add_row()
        self._at = len(self.rows) - 1 + min(0, below)
        self._column = min(max(0, column), WIDEST_MOVE)

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
            row.shift(column, -count if final == "P" else min(count, WIDEST_MOVE))
        self._column = column

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
