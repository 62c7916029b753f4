# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One row of a terminal: text in looks. As long as text only comes at its end, it is just a text.

Pure. `web/src/terminal/row.ts` says the same in TypeScript.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from arvados_nats.commands.terminal_rows.style import PLAIN, Style

COLUMNS = 4096
"""Columns that the cursor can reach: no terminal is wider, and what is drawn costs no more."""
ENDLESS = 1_000_000_000
"""Behind every column."""
_TAB = 8
_LONGEST_CELL = 32
"""UTF-16 units."""
_WIDE_SINCE = re.compile(
    "[\u2630-\u2637\u268a-\u268f\u4dc0-\u4dff\U0001d300-\U0001d356\U0001d360-\U0001d376"
    "\U0001f6d8\U0001f6dc\U0001fa70-\U0001faff]"
)
"""Wide since Unicode 15, 16 or 17: Python's own table is as old as Python is."""


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
    wide = unicodedata.east_asian_width(character) in "WF" or _WIDE_SINCE.match(character)
    return 2 if wide else 1


@dataclass(slots=True, eq=False)
class Row:
    """Text of one row, and the time stamp that its line began with, which is not part of it."""

    stamp: str = ""
    _runs: list[Run] = field(default_factory=list)
    _cells: list[Cell] | None = None
    _tail: list[Run] = field(default_factory=list)
    """What stands behind the columns."""

    @property
    def empty(self) -> bool:
        """Whether nothing stands in it."""
        return not (self._runs if self._cells is None else self._cells or self._tail)

    @property
    def runs(self) -> list[Run]:
        """What stands in it, in as few stretches as there are looks."""
        pieces: Sequence[Cell | Run] = self._runs
        if self._cells is not None:
            pieces = [*self._cells, *self._tail]
        grouped = groupby((piece for piece in pieces if piece.text), lambda piece: piece.style)
        return [Run("".join(piece.text for piece in same), style) for style, same in grouped]

    @property
    def text(self) -> str:
        """The text alone."""
        return "".join(run.text for run in self.runs)

    @property
    def width(self) -> int:
        """How many columns it has that the cursor can reach."""
        return len(self._columns())

    def append(self, text: str, style: Style) -> None:
        """Add text at the end."""
        if self._cells is None:
            self._runs.append(Run(text, style))
        elif self._tail:
            self._tail.append(Run(text, style))
        else:
            self.write(len(self._cells), text, style)

    def write(self, column: int, text: str, style: Style) -> int | None:
        """Write over what stands from a column on; the column after it, None behind all of them."""
        cells, at = self._columns(), column
        cells.extend([_BLANK] * (at - len(cells)))
        for written, character in enumerate(text):
            if at >= COLUMNS:
                self._tail = [Run(text[written:], style)]
                return None
            width = _TAB - at % _TAB if character == "\t" else columns(character)
            if width == 0:
                self._join(at, character)
                continue
            self._part(at)
            self._part(at + width)
            cells[at : at + width] = [Cell(character, style), *[Cell("", style)] * (width - 1)]
            at += width
        if at < COLUMNS:
            return at
        self._tail = []
        return None

    def erase(self, start: int, stop: int) -> None:
        """Blanks from a column up to before another; up to the end, nothing is left."""
        cells = self._columns()
        self._part(start)
        self._part(stop)
        if stop < len(cells) or (self._tail and stop < ENDLESS):
            stop = min(stop, len(cells))
            cells[start:stop] = [_BLANK] * (stop - start)
        else:
            del cells[start:]
            self._tail = []

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
            cells[column:column] = [_BLANK] * min(count, COLUMNS - len(cells))

    def take(self, other: Row) -> None:
        """Have what another row has."""
        self.stamp, self._runs = other.stamp, other._runs
        self._cells, self._tail = other._cells, other._tail

    def _columns(self) -> list[Cell]:
        if self._cells is None:
            self._cells = []
            for text, style in self._runs:
                self.append(text, style)
        return self._cells

    def _join(self, column: int, mark: str) -> None:
        """A mark that has no column of its own."""
        cells, at = self._columns(), column - 1
        while at > 0 and not cells[at].text:
            at -= 1
        if at >= 0 and len(cells[at].text.encode("utf-16-le")) < 2 * _LONGEST_CELL:
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


def tab_stop(column: int, count: int = 1) -> int:
    """So many tab stops after a column."""
    return _TAB * (column // _TAB + count)


def fitted(text: str, most: int) -> tuple[str, int]:
    """As much of a text as has room in so many columns, and how many it takes."""
    taken = 0
    for at, character in enumerate(text):
        if taken + columns(character) > most:
            return text[:at], taken
        taken += columns(character)
    return text, taken


def width(text: str) -> int:
    """Columns of a text."""
    return sum(map(columns, text))
