# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The client programs: how each is made ready where its language is, and one of them at work."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LANGUAGES = ("python", "go", "js", "ruby")


NO_NATS_PURE = "nats-pure is not installed: gem install nats-pure, or name its lib in RUBYLIB"


class Missing(Exception):
    """This machine does not have what the program needs."""


def ready(language: str, folder: Path) -> Sequence[str]:
    """The command that starts the program, made ready in an empty folder; Missing says why not."""
    match language:
        case "python":
            return [sys.executable, str(HERE / "python" / "arvados_live.py")]
        case "go":
            return _go(folder)
        case "js":
            return _js(folder)
        case _:
            return _ruby()


def _go(folder: Path) -> Sequence[str]:
    program = folder / "live"
    run([tool("go"), "build", "-trimpath", "-o", str(program), "."], HERE / "go")
    return [str(program)]


def _js(folder: Path) -> Sequence[str]:
    node, npm = tool("node"), tool("npm")
    for name in ("package.json", "package-lock.json", "arvados_live.mjs"):
        shutil.copy(HERE / "js" / name, folder)
    run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
    return [node, str(folder / "arvados_live.mjs")]


def wamp(language: str, folder: Path) -> Sequence[str]:
    """The same for a program that speaks WAMP with a library of others."""
    if language == "go":
        program = folder / "wamp"
        run([tool("go"), "build", "-trimpath", "-o", str(program), "."], HERE / "wamp_go")
        return [str(program)]
    node, npm = tool("node"), tool("npm")
    for name in ("package.json", "package-lock.json", "arvados_wamp.js"):
        shutil.copy(HERE / "wamp_js" / name, folder)
    run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
    return [node, str(folder / "arvados_wamp.js")]


def _ruby() -> Sequence[str]:
    ruby = tool("ruby")
    if not has_nats_pure():
        raise Missing(NO_NATS_PURE)
    return [ruby, str(HERE / "ruby" / "arvados_live.rb")]


def has_nats_pure() -> bool:
    """Whether Ruby has the library."""
    asked = [tool("ruby"), "-e", 'require "nats"']
    return not subprocess.run(asked, capture_output=True, check=False).returncode


def tool(name: str) -> str:
    """Where a program is; Missing if it is not."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


_NO_NETWORK = ("dial tcp", "ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "no such host", "ETIMEDOUT")


def run(command: Sequence[str], folder: Path) -> None:
    """Run a build step; Missing where its libraries cannot be fetched."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and any(word in done.stderr for word in _NO_NETWORK):
        raise Missing(f"{Path(command[0]).name} cannot fetch its libraries")
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


class Program:
    """A client at work: what it tells, and what it says of its connection."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = bytearray()
        self.said: list[str] = []
        self._news = asyncio.Event()
        assert process.stdout is not None
        assert process.stderr is not None
        self._reading = (
            asyncio.create_task(self._read_output(process.stdout)),
            asyncio.create_task(self._read_said(process.stderr)),
        )

    async def _read_output(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(65536):
            self.output += data
            self._news.set()

    async def _read_said(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.said.append(line.decode(errors="replace").strip().removeprefix("* "))
            self._news.set()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events told, in order."""
        return [json.loads(line) for line in self.lines]

    @property
    def lines(self) -> list[bytes]:
        """What it has told; a line that is not whole yet is left out."""
        return bytes(self.output[: self.output.rfind(b"\n") + 1]).splitlines()

    @property
    def objects(self) -> list[str]:
        return [event["object_uuid"] for event in self.events]

    def times(self, word: str) -> int:
        """How often it said something that begins so."""
        return sum(line.startswith(word) for line in self.said)

    async def says(self, word: str, times: int = 1, within: float = 60) -> None:
        """Return when it has said so, that many times in all."""
        await self.until(lambda: self.times(word) >= times, f"says {word} {times} times", within)

    async def tells(self, objects: Sequence[str], within: float = 60) -> None:
        """Return when it has told of these objects and of no others, in this order, each once."""
        await self.until(lambda: len(self.objects) >= len(objects), f"tells {objects}", within)
        assert self.objects == list(objects), self.said

    async def ends(self, within: float = 60) -> int:
        """Its exit code."""
        async with asyncio.timeout(within):
            await asyncio.gather(*self._reading)
            return await self.process.wait()

    async def until(self, condition: Any, what: str, within: float = 60) -> None:
        """Return when the condition holds, which is looked at when the program says anything."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within} s: {what}; it said {self.said}") from None

    async def soon(self, condition: Callable[[], bool], within: float) -> bool:
        """Whether the condition holds within so many seconds."""
        try:
            await self.until(condition, "", within)
        except AssertionError:
            return False
        return True

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.gather(*self._reading)
        await self.process.wait()


@asynccontextmanager
async def running(
    command: Sequence[str], *arguments: str, environment: Mapping[str, str]
) -> AsyncIterator[Program]:
    """Start a program; it is ended at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.stop()
