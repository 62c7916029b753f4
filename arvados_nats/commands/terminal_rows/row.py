# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One row of a terminal: text in looks. As long as text only comes at its end, it is just a text.

Pure. `web/src/terminal/row.ts` says the same in TypeScript.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from arvados_nats.commands.terminal_rows.style import PLAIN, Style

ROW_LIMIT = 100_000
"""Columns that the cursor can reach."""
_TAB = 8
_LONGEST_CELL = 32


class Cell(NamedTuple):
    """One column. A wide character or a tab is followed by columns without text."""

    text: str
    style: Style


class Run(NamedTuple):
    """A stretch of text in one look."""

    text: str
    style: Style


_BLANK = Cell(" ", PLAIN)


def columns(character: str) -> int:
    """Columns of a character: 0 if it joins the one before it."""
    if character < "\u0300":
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


@dataclass(slots=True, eq=False)
class Row:
    """Text of one row, and the time stamp that its line began with, which is not part of it."""

    stamp: str = ""
    _runs: list[Run] = field(default_factory=list)
    _cells: list[Cell] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing stands in it."""
        return not (self._runs if self._cells is None else self._cells)

    @property
    def runs(self) -> list[Run]:
        """What stands in it, in as few stretches as there are looks."""
        pieces = self._runs if self._cells is None else self._cells
        grouped = groupby((piece for piece in pieces if piece.text), lambda piece: piece.style)
        return [Run("".join(piece.text for piece in same), style) for style, same in grouped]

    @property
    def text(self) -> str:
        """The text alone."""
        return "".join(run.text for run in self.runs)

    @property
    def width(self) -> int:
        """How many columns it has."""
        return len(self._columns())

    def append(self, text: str, style: Style) -> None:
        """Add text at the end."""
        if self._cells is not None:
            self.write(len(self._cells), text, style)
        else:
            self._runs.append(Run(text, style))

    def write(self, column: int, text: str, style: Style) -> int:
        """Write over what stands from a column on; the column after it."""
        cells, at = self._columns(), column
        cells.extend([_BLANK] * (at - len(cells)))
        for character in text:
            width = _TAB - at % _TAB if character == "\t" else columns(character)
            if width == 0:
                self._join(at, character)
                continue
            self._part(at)
            self._part(at + width)
            cells[at : at + width] = [Cell(character, style), *[Cell("", style)] * (width - 1)]
            at += width
        return at

    def erase(self, start: int, stop: int) -> None:
        """Blanks from a column up to before another; up to the end, nothing is left."""
        cells = self._columns()
        self._part(start)
        self._part(stop)
        if stop >= len(cells):
            del cells[start:]
        else:
            cells[start:stop] = [_BLANK] * (stop - start)

    def shift(self, column: int, count: int) -> None:
        """Take columns out, or put blanks in: what stands behind moves."""
        cells = self._columns()
        if column >= len(cells):
            return
        self._part(column)
        if count < 0:
            self._part(column - count)
            del cells[column : column - count]
        else:
            cells[column:column] = [_BLANK] * count

    def _columns(self) -> list[Cell]:
        if self._cells is None:
            self._cells = []
            for text, style in self._runs:
                self.write(len(self._cells), text, style)
        return self._cells

    def _join(self, column: int, mark: str) -> None:
        """A mark that has no column of its own."""
        cells, at = self._columns(), column - 1
        while at > 0 and not cells[at].text:
            at -= 1
        if at >= 0 and len(cells[at].text) < _LONGEST_CELL:
            cells[at] = Cell(cells[at].text + mark, cells[at].style)

    def _part(self, column: int) -> None:
        """What stands over the border before a column is cut: blanks take its place."""
        cells = self._columns()
        if column >= len(cells) or cells[column].text:
            return
        first = column
        while first > 0 and not cells[first].text:
            first -= 1
        last = column
        while last < len(cells) and not cells[last].text:
            last += 1
        cells[first:last] = [_BLANK] * (last - first)


def tab_stop(column: int) -> int:
    """The next tab stop after a column."""
    return column + _TAB - column % _TAB
