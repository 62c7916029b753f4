# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Log lines as bytes to print: unchanged into a pipe; named, coloured and safe on a terminal.

Pure. Into a pipe go the bytes of the log, of one file exactly; a line end is added only where a
line without one is followed by a line of another file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from arvados_nats.commands.log_lines.merge import Line, stamp
from arvados_nats.commands.sanitize import RESET, Harmless, harmless
from arvados_nats.commands.terminal_rows.row import fitted

_COLOURS = ("36", "33", "35", "32", "34", "96", "93", "95", "92", "94")
_ERROR_COLOUR = "31"
_WIDEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Look:
    """How lines are printed. `safe`: for a terminal; `names`: each line begins with its file."""

    safe: bool = False
    names: bool = False
    colours: bool = False
    timestamps: bool = True

    @property
    def plain(self) -> bool:
        """Whether lines are printed as they are."""
        return self.timestamps and not self.safe and not self.names


class Output(Protocol):
    """Turns lines into bytes to print, in the order they come."""

    def turn(self, process: str, container: str) -> bytes:
        """What to print before lines of another container than those before."""

    def render(self, lines: Iterable[Line]) -> bytes:
        """What to print for these lines."""

    def part(self) -> bytes:
        """What to print so that the next line begins a new one, after what was held back."""

    def close(self) -> bytes:
        """What to print after the last line."""


class LogOutput:
    """Lines for a person, or as they are. Each says its process where there are several."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._harmless: dict[str, Harmless] = {}
        self._open: str | None = None
        """The file whose last line was printed without a line end."""
        self._width = 0
        self._process = self._container = ""

    def turn(self, process: str, container: str) -> bytes:
        """What to print before lines of another container than those before."""
        if self._container == container:
            return b""
        parting = self.part() if self._container else b""
        self._process, self._container = process, container
        return parting

    def render(self, lines: Iterable[Line]) -> bytes:
        """What to print for these lines."""
        return b"".join(map(self._bare if self._look.plain else self._line, lines))

    def part(self) -> bytes:
        """What to print so that the next line begins a new one, after what was held back."""
        was_open, self._open = self._open is not None, None
        held = [(file, safe.rest()) for file, safe in self._harmless.items()]
        rows = b"".join(self._rows(file, rows, named=True) for file, rows in held)
        return (b"\n" if was_open else b"") + rows

    def close(self) -> bytes:
        """What to print after the last line: a terminal's next line begins at its left edge."""
        return self.part() if self._look.safe else b""

    def _bare(self, line: Line) -> bytes:
        if self._open is None and line.data.endswith(b"\n"):
            return line.data
        parting = b"" if self._open in (None, line.file) else b"\n"
        self._open = None if line.whole else line.file
        return parting + line.data

    def _line(self, line: Line) -> bytes:
        joins = self._open == line.file
        content = line.data.removesuffix(b"\n")
        if self._look.safe:
            rows = self._rows(line.file, self._safe(line.file).line(content), named=not joins)
        else:
            if not self._look.timestamps and not joins:
                content = without_stamp(content)
            name = self._name(line.file).encode() if self._look.names and not joins else b""
            rows = name + content + b"\n"
        if not rows and not (joins and line.whole):
            return b""
        parting = b"" if joins or self._open is None else b"\n"
        self._open = None if line.whole else line.file
        return parting + (rows or b"\n" if line.whole else rows.removesuffix(b"\n"))

    def _rows(self, file: str, rows: list[str], *, named: bool) -> bytes:
        """Rows with their line ends; `named`: the first one begins with its file, as all others."""
        name = self._name(file) if self._look.names else ""
        first = name if named else ""
        return "".join(
            f"{name if index else first}{row}\n" for index, row in enumerate(rows)
        ).encode()

    def _safe(self, file: str) -> Harmless:
        found = self._harmless.get(file)
        if found is None:
            look = self._look
            found = Harmless(colours=look.colours, stamps=look.timestamps)
            self._harmless[file] = found
        return found

    def _name(self, file: str) -> str:
        name = harmless(f"{self._process} {file.removesuffix('.txt')}".strip().encode())
        shown, columns = fitted(name, _WIDEST_NAME)
        self._width = max(self._width, columns)
        text = f"{shown}{' ' * (self._width - columns)} | "
        return f"\x1b[{_colour(file)}m{text}{RESET}" if self._look.colours else text


def _colour(file: str) -> str:
    """The same file has the same colour in every run."""
    return _ERROR_COLOUR if file == "stderr.txt" else _COLOURS[sum(file.encode()) % len(_COLOURS)]


def without_stamp(line: bytes) -> bytes:
    """The line without the time stamp that it begins with, if it does."""
    return line.partition(b"Z ")[2] if stamp(line) and b"Z " in line[:31] else line
