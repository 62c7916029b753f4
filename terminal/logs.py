# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Show the logs of a container, or of a container request and all its attempts.

What the stream brings goes to standard output as soon as its turn has come (`merge`); one file
alone into a pipe is copied byte for byte. Everything else that is said goes to standard error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from arvados_nats import arvados_client
from arvados_nats.errors import Refused
from terminal import proxy_connection
from terminal.arvados_settings import ArvadosSettings
from terminal.command import Notes
from terminal.log_output import LogOutput, Look
from terminal.merge import Merge
from terminal.messages import Attempt, CaughtUp, End, Error, Gap, Log, Message, Subscribed
from terminal.reading import Reading

NOT_ENDED = 75
"""Exit code for a container that has not ended (EX_TEMPFAIL)."""
_CANCELLED = 1
_LOST_SECONDS = 60.0
"""How long a lost connection is tried when nobody asked to follow."""
_MORE_SECONDS = 0.3
"""What there is follows at once: the container of a request, the end of one that is over."""
_PROGRESS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be shown. `files`: names, empty for all."""

    uuid: str
    files: tuple[str, ...] = ()
    tail: int | None = None
    follow: bool = False


class Printer(Protocol):
    """Where bytes of log files go."""

    def add(self, file: str, data: bytes) -> None:
        """More of a file."""

    def behind(self) -> None:
        """What follows is history, also again after a lost connection."""

    def caught_up(self) -> None:
        """What follows is live."""

    def wait(self) -> float | None:
        """Seconds after which `flush` is to be called even if nothing comes."""

    def flush(self) -> None:
        """Print what can be printed now."""

    def part(self, *, anew: bool) -> None:
        """Print all; what follows does not join it. `anew`: it is of another container."""

    def end(self) -> None:
        """Print all; nothing follows."""


class Copy:
    """The bytes of one file as they are."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def add(self, file: str, data: bytes) -> None:
        self._write(data)

    def behind(self) -> None:
        """Nothing is put in order."""

    def caught_up(self) -> None:
        """Nothing waited."""

    def wait(self) -> float | None:
        return None

    def flush(self) -> None:
        """Nothing waits."""

    def part(self, *, anew: bool) -> None:
        """Nothing waits, and nothing is added."""

    def end(self) -> None:
        """Nothing waits."""


class Merged:
    """Lines of several files by time stamp, or of one on a terminal."""

    def __init__(self, write: Callable[[bytes], None], look: Look, notes: Notes) -> None:
        self._write = write
        self._output = LogOutput(look)
        self._notes = notes
        self._merge = Merge()
        self._told = False

    def add(self, file: str, data: bytes) -> None:
        self._merge.add(file, data, time.monotonic())

    def behind(self) -> None:
        self._merge.behind()

    def caught_up(self) -> None:
        self._merge.caught_up()

    def wait(self) -> float | None:
        due = self._merge.due()
        return None if due is None else max(due - time.monotonic(), 0)

    def flush(self) -> None:
        self._print(self._output.render(self._merge.take(time.monotonic())))
        if not self._merge.exact and not self._told:
            self._told = True
            self._notes.tell("the log is too large to be merged exactly; see files with --file")

    def part(self, *, anew: bool) -> None:
        self._print(self._rest() + self._output.part())
        if anew:
            self._merge = Merge()

    def end(self) -> None:
        self._print(self._rest() + self._output.close())

    def _rest(self) -> bytes:
        return self._output.render(self._merge.end(time.monotonic()))

    def _print(self, data: bytes) -> None:
        if data:
            self._notes.clear()
            self._write(data)


class Show:
    """One run of the command."""

    def __init__(self, wanted: Wanted, printer: Printer, notes: Notes) -> None:
        self._wanted = wanted
        self._printer = printer
        self._notes = notes
        self._received = 0
        self._over = False
        """What comes next, if it does not come at once, is the future."""
        self._live = False
        self._began = time.monotonic()

    async def run(self, reading: Reading) -> None:
        """Print until the end: of what is there, or of everything when following."""
        try:
            while True:
                message = await reading.get(self._wait())
                waited_enough = self._over and not self._wanted.follow
                if message is None and (reading.done or waited_enough):
                    break
                if message is not None:
                    self._take(message)
                self._printer.flush()
        finally:
            self._notes.clear()
            self._printer.end()
        if not self._received:
            self._notes.tell("nothing has been logged" + (" yet" if not reading.done else ""))

    def _wait(self) -> float | None:
        if self._over and not self._wanted.follow:
            return _MORE_SECONDS
        return self._printer.wait()

    def _take(self, message: Message) -> None:
        self._over = self._is_last(message)
        match message:
            case Log():
                self._received += len(message.data)
                self._printer.add(message.file, message.data)
                self._tell_progress()
            case Subscribed():
                self._printer.behind()
            case CaughtUp():
                self._live = True
                self._printer.caught_up()
                self._notes.clear()
            case Gap():
                self._printer.part(anew=False)
                self._notes.tell(_gap(message))
            case Attempt():
                self._begin_attempt(message)
            case End() if message.file and message.confirmed is False:
                self._notes.tell(f"{message.file}: no saved log confirms that this was all")
            case Error(temporary=True):
                self._notes.tell(f"{message.message}; trying again")

    def _is_last(self, message: Message) -> bool:
        """Whether this may be the last of what there is; a request may have no container."""
        if isinstance(message, Subscribed):
            return "-xvhdp-" in self._wanted.uuid
        return isinstance(message, CaughtUp | End)

    def _begin_attempt(self, attempt: Attempt) -> None:
        self._printer.part(anew=True)
        self._live = False
        if attempt.n > 1:
            self._notes.tell(f"attempt {attempt.n}: container {attempt.container}")

    def _tell_progress(self) -> None:
        if not self._live and time.monotonic() - self._began > _PROGRESS_SECONDS:
            self._notes.progress(f"reading the log … {self._received / 1e6:.1f} MB")


def _gap(gap: Gap) -> str:
    if gap.file is None:
        return f"container {gap.container}: {gap.reason}"
    to = "the end" if gap.to is None else str(gap.to)
    return f"{gap.file}: bytes {gap.from_} to {to} are missing: {gap.reason}"


async def show(
    settings: ArvadosSettings, wanted: Wanted, printer: Printer, notes: Notes, proxy: str | None
) -> None:
    """Print the logs that are wanted."""
    again = None if wanted.follow else _LOST_SECONDS
    async with proxy_connection.connect(settings, proxy, notes, again=again) as events:
        reading = await events.log(wanted.uuid, files=wanted.files or None, tail=wanted.tail)
        try:
            await Show(wanted, printer, notes).run(reading)
        except Refused as error:
            raise proxy_connection.about(wanted.uuid, error) from error.__cause__


async def exit_code(settings: ArvadosSettings, uuid: str) -> int:
    """The exit code that stands for how the container, or the request's last one, ended."""
    async with arvados_client.connect(
        settings.url, ca_file=settings.ca_file, insecure=settings.insecure
    ) as arvados:
        record = await arvados.record(settings.token, uuid)
        if "container_uuid" in record:
            if not record["container_uuid"]:
                return NOT_ENDED
            record = await arvados.record(settings.token, record["container_uuid"])
    return code_of(record.get("state"), record.get("exit_code"))


def code_of(state: object, code: object) -> int:
    """The exit code for a container's state and exit code."""
    if state == "Cancelled":
        return _CANCELLED
    if state != "Complete":
        return NOT_ENDED
    return code if isinstance(code, int) else _CANCELLED
