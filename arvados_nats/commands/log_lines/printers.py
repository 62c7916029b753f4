# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of log files go: one file as it is, or the lines of several by time stamp.

A request's attempts come one after the other; of a former one whose end was not known yet, more can
come while the next one runs. Lines for a person are printed when they come, copied bytes in the
order of the attempts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import IO, Protocol

from arvados_nats.commands.command import Notes
from arvados_nats.commands.log_lines.choice import EVERY, Choice
from arvados_nats.commands.log_lines.merge import Line, Merge
from arvados_nats.commands.log_lines.output import Output

_HELD_IN_MEMORY = 8 * 1024 * 1024
_PORTION = 256 * 1024


class Printer(Protocol):
    """Where bytes of log files go."""

    def begin(self, container: str) -> None:
        """The next attempt begins."""

    def add(self, container: str, file: str, data: bytes) -> None:
        """More of a file."""

    def behind(self) -> None:
        """What follows is history, also again after a lost connection."""

    def caught_up(self) -> None:
        """What follows is live."""

    def wait(self) -> float | None:
        """Seconds after which `flush` is to be called even if nothing comes."""

    def flush(self) -> None:
        """Print what can be printed now."""

    def part(self, container: str) -> None:
        """Print all of a container; what follows does not join it."""

    def over(self, container: str) -> None:
        """Nothing follows of a container."""

    def end(self) -> None:
        """Print all; nothing follows."""


class Copy:
    """The bytes of one file as they are, those of each attempt after all of the one before it."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._waiting: dict[str, IO[bytes] | None] = {}
        """Attempts in order. None: it is its turn, or nothing waits."""
        self._over: set[str] = set()

    def begin(self, container: str) -> None:
        self._waiting.setdefault(container, None)

    def add(self, container: str, file: str, data: bytes) -> None:
        self.begin(container)
        if container == next(iter(self._waiting)):
            self._write(data)
            return
        held = self._waiting[container]
        if held is None:
            held = self._waiting[container] = tempfile.SpooledTemporaryFile(_HELD_IN_MEMORY)
        held.write(data)

    def behind(self) -> None:
        """Nothing is put in order."""

    def caught_up(self) -> None:
        """Nothing is put in order."""

    def wait(self) -> float | None:
        return None

    def flush(self) -> None:
        """What waits, waits for an end."""

    def part(self, container: str) -> None:
        """Nothing is added."""

    def over(self, container: str) -> None:
        self._over.add(container)
        while self._waiting and next(iter(self._waiting)) in self._over:
            self._next()

    def end(self) -> None:
        while self._waiting:
            self._next()

    def _next(self) -> None:
        """It is the next one's turn."""
        del self._waiting[next(iter(self._waiting))]
        if not self._waiting:
            return
        container, held = next(iter(self._waiting.items()))
        if held is not None:
            self._waiting[container] = None
            with held:
                held.seek(0)
                while data := held.read(_PORTION):
                    self._write(data)


class Merged:
    """Lines of several files by time stamp, or of one on a terminal."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        output: Output,
        notes: Notes,
        *,
        process: str = "",
        choice: Choice = EVERY,
    ) -> None:
        self._write = write
        self._output = output
        self._notes = notes
        self._process = process
        self._choice = choice
        self._merges: dict[str, Merge] = {}
        """By attempt, in order, as long as they are not over."""
        self._told = False

    def begin(self, container: str) -> None:
        self.caught_up()  # no more history comes of the former attempt
        self._merges.setdefault(container, Merge())

    def add(self, container: str, file: str, data: bytes) -> None:
        merge = self._merges.get(container)
        if merge is None:
            merge = self._merges[container] = Merge()
        merge.add(file, data, time.monotonic())

    def behind(self) -> None:
        for merge in self._present():
            merge.behind()

    def caught_up(self) -> None:
        for merge in self._present():
            merge.caught_up()

    def _present(self) -> list[Merge]:
        return list(self._merges.values())[-1:]

    def wait(self) -> float | None:
        dues = [due for merge in self._merges.values() if (due := merge.due()) is not None]
        return max(min(dues) - time.monotonic(), 0) if dues else None

    def flush(self) -> None:
        now = time.monotonic()
        for container, merge in self._merges.items():
            self._print(container, merge.take(now))
            if not merge.exact and not self._told:
                self._told = True
                self._notes.tell("the log is too large to be merged exactly; see files with --file")

    def part(self, container: str) -> None:
        self._rest(container)
        self._show(self._output.part())

    def over(self, container: str) -> None:
        self._rest(container)
        self._merges.pop(container, None)

    def end(self) -> None:
        for container in self._merges:
            self._rest(container)
        self._show(self._output.close())

    def _rest(self, container: str) -> None:
        merge = self._merges.get(container)
        if merge is not None:
            self._print(container, merge.end(time.monotonic()))

    def _print(self, container: str, lines: list[Line]) -> None:
        if not self._choice.all:
            lines = [line for line in lines if self._choice.has(line)]
        if lines:
            parting = self._output.turn(self._process, container)
            self._show(parting + self._output.render(lines))

    def _show(self, data: bytes) -> None:
        if data:
            self._notes.clear()
            self._write(data)
