# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A server process that the sandbox owns: it is ended by its id, and never outlives the sandbox.

Used by the embedded NATS server and PostgreSQL. The kernel of Linux kills the child when the
thread that started it ends, so that a killed test run leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from arvados_nats.errors import Unavailable

_POLL = 0.02
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_SETPRIV = shutil.which("setpriv")
"""Asks the kernel for that on behalf of the child. In Python it takes a copy of this process, which
for one of 300 MB costs 24 ms of a core."""


class Process(Protocol):
    """A server that runs somewhere: a child of ours, or a container."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""

    def tail(self, lines: int = 12) -> str:
        """The last lines of its output, to say why it did not start."""

    async def stop(self, ask: signal.Signals, within: float = 10.0) -> None:
        """Ask it to end, and kill it when it has not done so `within` seconds."""

    async def kill(self) -> None:
        """End it at once, as a power cut would."""


class Child:
    """One running process, with its output in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended: None while it runs, negative for the signal that killed it."""
        return self._process.poll()

    def tail(self, lines: int = 12) -> str:
        """The last lines of its output, to say why it did not start."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    async def stop(self, ask: signal.Signals, within: float = 10.0) -> None:
        """Ask it to end, and kill it when it has not done so `within` seconds."""
        if self.running:
            self._process.send_signal(ask)
            try:
                await asyncio.to_thread(self._process.wait, within)
            except subprocess.TimeoutExpired:
                await self.kill()

    async def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.running:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    user: tuple[int, int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Start a command, as another user (uid, gid) when told so; its output goes to `log`."""
    uid, gid = user if user else (None, None)
    asking = [_SETPRIV, "--pdeathsig", "KILL", "--"] if _SETPRIV and user is None else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*asking, *(str(part) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=uid,
            group=gid,
            extra_groups=[] if user else None,
            env=environment,
            preexec_fn=None if asking else _die_with_parent,
            start_new_session=True,  # Ctrl-C in a terminal is for us, and we stop it in order
        )
    return Child(process, log)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def ready(process: Process, check: Callable[[], Awaitable[bool]], within: float) -> None:
    """Wait until `check` says yes; `Unavailable` with the end of the log when it does not."""
    deadline = time.monotonic() + within
    while not await check():
        if not process.running or time.monotonic() > deadline:
            await process.kill()
            raise Unavailable(f"the server did not start:\n{process.tail()}")
        await asyncio.sleep(_POLL)
