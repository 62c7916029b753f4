# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A journald of our own, with a journal that nobody else writes to: a namespace of the real one."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

_DAEMON = Path("/lib/systemd/systemd-journald")
_DATAGRAM_BYTES = 64 * 1024
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class NotStarted(Exception):
    """This machine lets no journald run: it has ended by itself."""


class Journald:
    """Runs under a name of its own until `stop`; its files stay until the end of the test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: asyncio.subprocess.Process | None = None
        self._sockets = Path(f"/run/systemd/journal.{name}")

    async def start(self) -> None:
        """Return when it answers; NotStarted if it has ended instead."""
        self._process = await asyncio.create_subprocess_exec(_DAEMON, self.name)
        async with asyncio.timeout(60):
            while not await self._answers():
                if self._process.returncode is not None:
                    raise NotStarted(f"systemd-journald ended with {self._process.returncode}")
                await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        asking = await asyncio.create_subprocess_exec(
            "journalctl", f"--namespace={self.name}", "--sync", stderr=asyncio.subprocess.DEVNULL
        )
        return await asking.wait() == 0

    async def stop(self) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()
            self._process = None
            (self._sockets / "socket").unlink(missing_ok=True)

    def write(self, message: bytes, **fields: str) -> None:
        """One record; its fields as journald's own protocol has them, so any bytes can be in it."""
        record = b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n"
        record += b"".join(f"{name}={value}\n".encode() for name, value in fields.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.connect(str(self._sockets / "socket"))
            if len(record) < _DATAGRAM_BYTES:
                sending.send(record)
                return
            memory = os.memfd_create("record", os.MFD_ALLOW_SEALING)
            try:
                os.write(memory, record)
                fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
                socket.send_fds(sending, [b""], [memory])
            finally:
                os.close(memory)

    def control(self, *arguments: str) -> str:
        """What `journalctl` prints about this journal."""
        return subprocess.run(
            ["journalctl", f"--namespace={self.name}", "--quiet", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout

    def folders(self) -> Iterator[Path]:
        """Where its files are."""
        yield self._sockets
        for root in ("/var/log/journal", "/run/log/journal"):
            yield from Path(root).glob(f"*.{self.name}")


def _can_run() -> bool:
    return _DAEMON.exists() and shutil.which("journalctl") is not None and os.geteuid() == 0


@asynccontextmanager
async def journald() -> AsyncIterator[Journald]:
    """One that runs; the test is skipped where there is none, or it may not run."""
    if not _can_run():
        pytest.skip("no systemd-journald that this user may start")
    made = Journald(f"an{uuid.uuid4().hex[:8]}")
    try:
        try:
            await made.start()
        except NotStarted as reason:
            pytest.skip(str(reason))
        yield made
    finally:
        await made.stop()
        for folder in made.folders():
            shutil.rmtree(folder, ignore_errors=True)
