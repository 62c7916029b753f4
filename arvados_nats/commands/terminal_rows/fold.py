# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The rows that bytes of a log make on a terminal, in order and in any cuts.

Pure. A terminal of endless height and width: carriage returns, erasing and relative moves of the
cursor act within the last rows, since progress is drawn with them; everything else that a terminal
would do is left out or made visible. `web/src/terminal/fold.ts` says the same in TypeScript, and
one table of cases tests both.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

from arvados_nats.commands.terminal_rows import tokens
from arvados_nats.commands.terminal_rows.row import ROW_LIMIT, Row, tab_stop
from arvados_nats.commands.terminal_rows.style import PLAIN, after

REACH = 100
"""How many rows up the cursor can go."""
_WIDEST_MOVE = 255
"""A terminal's width as far as moves to the right are concerned."""


class Fold:
    """Give it bytes with `write`; `rows` are those that the cursor can still reach.

    `left` is called with each row that it cannot reach any more.
    """

    def __init__(self, left: Callable[[Row], None] = lambda _: None) -> None:
        self.rows: list[Row] = []
        self.highest = 0
        """How far above the last row something was written, at most, since it was set to 0."""
        self.touched: dict[Row, None] = {}
        """Rows that are new or were written to, until they are taken out of it."""
        self._left = left
        self._at = 0
        self._column: int | None = None
        """None: at the end of the row."""
        self._style = PLAIN
        self._saved: tuple[Row, int] | None = None
        self._away = False
        """The cursor is somewhere on the screen where no log is: apt's bar at the bottom."""
        self._top: int | None = None
        """First row of the screen since it was cleared."""
        self._held = ""
        self._line_begins = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    @property
    def fresh(self) -> bool:
        """Nothing stands in the last row: it is not one to show yet."""
        return not self.rows or (self.rows[-1].empty and not self.rows[-1].stamp)

    @property
    def plain(self) -> bool:
        """Whether what follows begins a row in no look: then a plain line is shown as it is."""
        return (
            self._style == PLAIN
            and not self._held
            and not self._away
            and self._at >= len(self.rows) - 1
            and self.fresh
        )

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
            self._line_feed()
            self._line_begins = True
        if rest:
            self._line(rest, ended=False)

    @property
    def _row(self) -> Row:
        if not self.rows:
            self._add_row()
        return self.rows[self._at]

    def _touch(self) -> Row:
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

    def _line_feed(self) -> None:
        self._away = False
        _ = self._row
        if self._at == len(self.rows) - 1:
            self._add_row()
        else:
            self._at, self._column = self._at + 1, 0

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
                self._touch().stamp = found[1]
                text = text[found.end() :]
        self._part(text, ended=ended)

    def _part(self, text: str, *, ended: bool) -> None:
        text, self._held = self._held + text, ""
        if self._column is None and not tokens.SPECIAL.search(text):
            self._show(text)
            return
        found = None if ended else tokens.begun(text)
        if found:
            self._held, text = found[0], text[: found.start()]
        for token in tokens.TOKEN.finditer(text):
            if token["text"] is not None:
                self._show(token["text"])
            elif token["final"] is not None:
                self._sequence(token["parameters"], token["between"], token["final"])
            elif token["short"] is not None:
                self._short(token["short"])
            elif token["acting"] is not None:
                self._control(token["acting"])

    def _show(self, text: str) -> None:
        if self._away or not text:
            return
        row = self._touch()
        if self._column is None or (self._column == 0 and row.empty):
            self._column = None
            row.append(text, self._style)
        elif self._column < ROW_LIMIT:
            self._column = row.write(self._column, text, self._style)

    def _control(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\b":
            self._column = max(0, self._where() - 1)
        elif character == "\t" and self._column is not None and self._column < self._row.width:
            self._column = tab_stop(self._column)
        elif character == "\t":
            self._show("\t")
        elif character not in "\x0e\x0f":
            self._show(tokens.visible(character))

    def _where(self) -> int:
        """The column of the cursor."""
        return self._row.width if self._column is None else self._column

    def _short(self, sequence: str) -> None:
        if sequence == "7":
            self._save()
        elif sequence == "8":
            self._restore()
        elif sequence == "M":
            self._vertical(-1)
        elif sequence == "D":
            self._vertical(1)
        elif sequence == "E":
            self._line_feed()
        elif sequence == "c":
            self._clear()

    def _save(self) -> None:
        self._saved = (self._row, self._where())

    def _restore(self) -> None:
        self._away = False
        if self._saved and self._saved[0] in self.rows:
            self._at, self._column = self.rows.index(self._saved[0]), self._saved[1]

    def _sequence(self, parameters: str, between: str, final: str) -> None:
        if between or any(mark in parameters for mark in "<=>?"):
            return
        if final == "m":
            self._style = after(self._style, parameters)
            return
        numbers = [
            min(ROW_LIMIT, int(part.partition(":")[0] or 0)) for part in parameters.split(";")
        ]
        if not self._away or final == "u":
            self._move(final, numbers[0], numbers[1] if len(numbers) > 1 else 0)

    def _move(self, final: str, first: int, second: int) -> None:
        count = max(1, first)
        if final in "AF":
            self._vertical(-count, 0 if final == "F" else None)
        elif final in "BE":
            self._vertical(count, 0 if final == "E" else None)
        elif final in "CD":
            self._go_to(self._where() + (count if final == "C" else -count))
        elif final in "G`":
            self._go_to(count - 1)
        elif final in "Hf":
            self._place(count - 1, second)
        elif final in "JK":
            (self._erase_below if final == "J" else self._erase_in_row)(first)
        elif final in "P@X":
            self._edit(final, count)
        elif final in "su":
            (self._save if final == "s" else self._restore)()

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
        top = max(self._top or 0, len(self.rows) - REACH)
        self._at = min(top + row, len(self.rows) - 1)
        self._column = min(max(0, second - 1), _WIDEST_MOVE)

    def _clear(self) -> None:
        """The screen is empty; what was on it stays as it is above."""
        if self.rows and not self.rows[-1].empty:
            self._add_row()
        _ = self._row
        self._at = self._top = len(self.rows) - 1
        self._column = 0

    def _erase_below(self, how: int) -> None:
        if how in (2, 3):
            self._clear()
        if how != 0:
            return
        self._erase_in_row(0)
        for row in self.rows[self._at + 1 :]:
            row.erase(0, row.width)
            self.touched[row] = None

    def _erase_in_row(self, how: int) -> None:
        column, row = self._where(), self._touch()
        if how == 0:
            row.erase(column, max(column, row.width))
        elif how == 1:
            row.erase(0, column + 1)
        elif how == 2:
            row.erase(0, row.width)
        self._column = column

    def _edit(self, final: str, count: int) -> None:
        """Take columns out, put blanks in, or blank them."""
        column, row = self._where(), self._touch()
        if final == "X":
            row.erase(column, column + count)
        else:
            row.shift(column, -count if final == "P" else min(count, _WIDEST_MOVE))
        self._column = column
