# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Text of a log as a terminal may show it: colours stay, nothing else acts.

Pure. A log is written by anybody's program, so what would set the title, ring the bell or turn the
text around is left out or made visible. Progress that a program draws by moving the cursor is
followed (`terminal_rows`): its rows are printed when they are final. A row never leaves its colours
to what follows it; the next one of its file takes them up.
"""

from __future__ import annotations

from collections import deque

from arvados_nats.commands.terminal_rows import tokens
from arvados_nats.commands.terminal_rows.fold import Fold
from arvados_nats.commands.terminal_rows.grid import REACH
from arvados_nats.commands.terminal_rows.row import Row
from arvados_nats.commands.terminal_rows.style import PLAIN, sequence

RESET = "\x1b[0m"


def text_of(data: bytes) -> str:
    """Text of bytes; what is not UTF-8 is shown as `\\xNN`."""
    return data.decode("utf-8", "backslashreplace")


def harmless(data: bytes) -> str:
    """One line without its end, and without colours."""
    screen = Harmless(colours=False)
    return " ".join([*screen.line(data), *screen.rest()])


def harmless_text(text: str) -> str:
    """All lines of a message, in which names of anybody's may stand."""
    return "\n".join(harmless(line.encode("utf-8", "replace")) for line in text.split("\n"))


class Harmless:
    """The lines of one file, made harmless one after the other."""

    def __init__(self, *, colours: bool = True, stamps: bool = True) -> None:
        self._colours = colours
        self._stamps = stamps
        self._fold = Fold(self._gone)
        self._screen = self._fold.screen
        self._plain: deque[bytes] = deque(maxlen=REACH)
        """The last lines that needed no fold: it hears of them when a line needs it."""
        self._printed: dict[Row, str] = {}
        self._pending: dict[Row, None] = {}
        self._ready: list[str] = []
        self._reach = 0
        """How far up the program goes to draw: so many rows are not final."""
        self._quiet = 0
        """Lines since it went up."""

    def line(self, data: bytes) -> list[str]:
        """The rows that are final after a line, which is given without its line end."""
        text = text_of(data)
        if not self._pending and self._fold.plain and text.replace("\t", "").isprintable():
            self._plain.append(data)
            stamp = None if self._stamps else tokens.STAMP.match(text)
            return [text[stamp.end() :] if stamp else text]
        self._catch_up()
        self._screen.highest = 0
        self._fold.write(data + b"\n")
        self._measure()
        return self._take(len(self._screen.rows) - 1 - self._reach)

    def rest(self) -> list[str]:
        """What was held back, since more could have been drawn over it."""
        self._catch_up()
        self._fold.close()
        return self._take(len(self._screen.rows) - self._screen.fresh)

    def _catch_up(self) -> None:
        while self._plain:
            self._fold.write(self._plain.popleft() + b"\n")
            for row in self._screen.rows[-2:-1]:
                self._printed[row] = self._shown(row)
                self._screen.touched.pop(row, None)

    def _measure(self) -> None:
        if self._screen.highest:
            self._reach, self._quiet = max(self._reach, self._screen.highest), 0
        elif self._reach:
            self._quiet += 1
            if self._quiet > 2 * self._reach:
                self._reach = 0

    def _take(self, final: int) -> list[str]:
        """Print what was written to, of the rows before one."""
        self._pending |= self._screen.touched
        self._screen.touched.clear()
        if self._pending:
            for row in self._screen.rows[: max(0, final)]:
                if row in self._pending:
                    self._print(row)
        ready, self._ready = self._ready, []
        return ready

    def _print(self, row: Row) -> None:
        del self._pending[row]
        shown = self._shown(row)
        if self._printed.get(row) != shown:
            self._printed[row] = shown
            self._ready.append(shown)

    def _gone(self, row: Row) -> None:
        """The cursor cannot reach it any more."""
        if row in self._screen.touched or row in self._pending:
            self._screen.touched.pop(row, None)
            self._pending[row] = None
            self._print(row)
        self._printed.pop(row, None)

    def _shown(self, row: Row) -> str:
        stamp = f"{row.stamp} " if self._stamps and row.stamp else ""
        if not self._colours:
            return stamp + row.text
        return stamp + "".join(
            text if style == PLAIN else f"{sequence(style)}{text}{RESET}"
            for text, style in row.runs
        )
