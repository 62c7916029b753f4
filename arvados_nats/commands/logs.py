# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Show the logs of a container, or of a container request and all its attempts.

What the stream brings goes to standard output as soon as its turn has come (`log_lines`).
Everything else that is said goes to standard error.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from arvados_nats.client.subscription_handle import SubscriptionHandle
from arvados_nats.commands.arvados_settings import ArvadosSettings
from arvados_nats.commands.command import Notes
from arvados_nats.commands.log_lines.printers import Printer
from arvados_nats.protocol_v1.messages import (
    Attempt,
    CaughtUp,
    End,
    Error,
    Gap,
    Log,
    ServerMessage,
    Subscribed,
)

NOT_ENDED = 75
"""Exit code for a container that has not ended (EX_TEMPFAIL)."""
_CANCELLED = 1
_MORE_SECONDS = 0.3
"""What there is follows at once: the container of a request, the end of one that is over."""
_PROGRESS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LogSelection:
    """What is to be shown. `files`: names, empty for all; `only`: one attempt's container."""

    uuid: str
    files: tuple[str, ...] = ()
    tail: int | None = None
    follow: bool = False
    only: str | None = None


class Show:
    """One run of the command."""

    def __init__(self, wanted: LogSelection, printer: Printer, notes: Notes) -> None:
        self._wanted = wanted
        self._printer = printer
        self._notes = notes
        self.received = 0
        """Bytes."""
        self._done = False
        """All has come of the attempt that is wanted."""
        self._over_at: float | None = None
        """What comes after this moment is the future."""
        self._live = False
        self._container: str | None = None
        self._told: set[str] = set()
        """Containers of which it was said that they are of an earlier attempt."""
        self._began = time.monotonic()

    async def run(self, handle: SubscriptionHandle) -> None:
        """Print until the end: of what is there, or of everything when following."""
        try:
            while True:
                left = self._left()
                if left is not None and left <= 0:
                    break
                message = await handle.get(left or self._printer.wait())
                if message is None and handle.done:
                    break
                if message is not None:
                    self._take(message)
                if self._done:
                    break
                self._printer.flush()
        finally:
            self._notes.clear()
            self._printer.end()

    def _left(self) -> float | None:
        """Seconds until all has come that is asked for; None if that is not known."""
        if self._over_at is None or self._wanted.follow:
            return None
        return self._over_at - time.monotonic()

    def _take(self, message: ServerMessage) -> None:
        if not self._of_another(message):
            self._take_own(message)
        elif isinstance(message, Attempt) and not self._wanted.follow:
            # Followed: the end of one whose node died can come while the next one runs.
            self._done = True

    def _take_own(self, message: ServerMessage) -> None:
        if isinstance(message, CaughtUp | End):
            self._over_at = time.monotonic() + _MORE_SECONDS
        elif not (self._live and isinstance(message, Log)):
            self._over_at = None
        match message:
            case Log():
                self._take_log(message)
            case Subscribed():
                self._printer.behind()
            case CaughtUp():
                self._live = True
                self._printer.caught_up()
                self._notes.clear()
            case Gap():
                self._printer.part(message.container or "")
                self._notes.tell(_gap(message))
            case Attempt():
                self._begin_attempt(message)
            case End():
                self._take_end(message)
            case Error(temporary=True) | Error(code="log_gone"):  # any other ends the reading
                self._notes.tell(message.message + "; trying again" * message.temporary)

    def _take_log(self, log: Log) -> None:
        if not self.received:
            self._notes.clear()
        self.received += len(log.data)
        self._tell_former(log.container)
        self._printer.add(log.container, log.file, log.data)
        self._tell_progress()

    def _of_another(self, message: ServerMessage) -> bool:
        """Whether this is about another attempt than the one that is wanted."""
        return (
            self._wanted.only is not None
            and isinstance(message, Attempt | Log | Gap | End)
            and isinstance(message.container, str)
            and message.container != self._wanted.only
        )

    def _begin_attempt(self, attempt: Attempt) -> None:
        self._printer.begin(attempt.container)
        self._live = False
        self._container = attempt.container
        if attempt.n > 1 and not self._wanted.only:
            self._notes.tell(f"attempt {attempt.n}: container {attempt.container}")

    def _tell_former(self, container: str) -> None:
        """Say once that more comes of an earlier attempt."""
        if self._container not in (None, container) and container not in self._told:
            self._told.add(container)
            self._notes.tell(f"more of the log of the attempt before: container {container}")

    def _take_end(self, end: End) -> None:
        if end.container and not end.file:
            self._printer.over(end.container)
            self._done = end.container == self._wanted.only
        if end.file and end.confirmed is False:
            former = "" if self._container in (None, end.container) else end.container
            name = f"{former} {end.file}" if former else end.file
            self._notes.tell(f"{name}: no saved log confirms that this was all")

    def _tell_progress(self) -> None:
        if not self._live and time.monotonic() - self._began > _PROGRESS_SECONDS:
            self._notes.progress(f"reading the log … {self.received / 1e6:.1f} MB")


def _gap(gap: Gap) -> str:
    if not gap.file:
        return f"container {gap.container}: {gap.reason}"
    to = gap.to if isinstance(gap.to, int) else "the end"
    return f"{gap.file}: bytes {gap.from_} to {to} are missing: {gap.reason}"


async def exit_code(settings: ArvadosSettings, uuid: str) -> int:
    """The exit code that stands for how the container, or the request's last one, ended."""
    async with settings.connect() as arvados:
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
