# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A command as a person starts it: a process with its environment, into a pipe or a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.model.actors import Actor
from sandbox.stack import Stack

SECONDS = 60.0


@dataclass(slots=True)
class Command:
    """A running command; `out` and `err` hold what it has said so far."""

    process: asyncio.subprocess.Process
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    readers: list[asyncio.Task[None]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def said(self) -> str:
        """Standard error as text."""
        return self.err.decode(errors="replace")

    async def end(self, within: float = SECONDS) -> int:
        """Its exit code, when all that it wrote has been read."""
        async with asyncio.timeout(within):
            await asyncio.gather(*self.readers)
            return await self.process.wait()

    async def shows(self, text: bytes, within: float = SECONDS) -> None:
        """Wait until its output holds this text."""
        await self._until(self.out, text, within)

    async def tells(self, text: str, within: float = SECONDS) -> None:
        """Wait until it has said this on standard error."""
        await self._until(self.err, text.encode(), within)

    async def _until(self, said: bytearray, text: bytes, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                while text not in said:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {within} s: {text!r} in {bytes(said[-2000:])!r}; {self.said[-2000:]}"
            ) from None

    async def read(self, reader: asyncio.StreamReader, into: bytearray) -> None:
        """Collect what comes until the end."""
        with contextlib.suppress(OSError):  # a terminal whose other end is closed
            while data := await reader.read(65536):
                into += data
                self._news.set()


def environment(stack: Stack, actor: Actor | None, home: Path, **more: str) -> dict[str, str]:
    """What the command finds in its environment: nothing of ours but what Arvados' tools read."""
    kept = {name: value for name, value in os.environ.items() if "ARVADOS" not in name}
    told = stack.sandbox.client_environment(actor.token if actor else "")
    return {**kept, "HOME": str(home), "XDG_CONFIG_DIRS": "/none", "TERM": "xterm", **told, **more}


@contextlib.asynccontextmanager
async def started(
    *arguments: str, env: dict[str, str], terminal: bool = False, notes_too: bool = False
) -> AsyncIterator[Command]:
    """`arvados-nats` with these arguments; killed at the end if it still runs. `notes_too`: what it
    says on standard error comes in the terminal as well, and so in `out`."""
    master, output = pty.openpty() if terminal else (-1, asyncio.subprocess.PIPE)
    if terminal:
        fcntl.ioctl(output, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "arvados_nats", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output if notes_too else asyncio.subprocess.PIPE,
        env=env,
    )
    command = Command(process)
    if process.stderr is not None:
        command.readers.append(asyncio.create_task(command.read(process.stderr, command.err)))
    async with contextlib.AsyncExitStack() as exits:
        stdout = process.stdout
        if terminal:
            os.close(output)
            stdout = await exits.enter_async_context(_reader(master))
        assert stdout is not None
        command.readers.append(asyncio.create_task(command.read(stdout, command.out)))
        try:
            yield command
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await asyncio.gather(*command.readers)


@contextlib.asynccontextmanager
async def _reader(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        yield reader
    finally:
        transport.close()


async def ran(*arguments: str, env: dict[str, str]) -> tuple[int, bytes, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    async with started(*arguments, env=env) as command:
        code = await command.end()
        return code, bytes(command.out), command.said
