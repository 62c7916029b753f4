# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Play the frames of a server to any client, and see whether it does what a right client does.

``python play.py frames/recorded/v1-log-resume.jsonl -- command of the client``

Needs `websockets` and no other part of this project. The command gets the environment variables
`EVENTS_URL` (with the token in it for v0), `ARVADOS_API_TOKEN` and `FOLLOW`, a JSON object that
says what to follow; README.md says what it has to print.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

TOKEN = "v2/zzzzz-gj3su-8kn2c0q5wl3x7ab/secret"
WITHIN = 60.0
"""Seconds for each thing that the client has to do."""


def lines(path: Path) -> list[dict[str, Any]]:
    """What a file of frames holds."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Wrong(Exception):
    """The client did something else."""


class Names:
    """Words that the client chooses, `$id` and the like, anew for each connection."""

    def __init__(self) -> None:
        self._given: dict[str, Any] = {"$token": TOKEN}

    def match(self, wanted: Any, got: Any, path: str = "") -> None:
        """Every field that is wanted is there; what else the client says is its own affair."""
        if isinstance(wanted, str) and wanted.startswith("$"):
            wanted = self._given.setdefault(wanted, got)
        if isinstance(wanted, dict) and isinstance(got, dict):
            for key, value in wanted.items():
                if key not in got:
                    raise Wrong(f"{path}/{key} is not there: {got}")
                self.match(value, got[key], f"{path}/{key}")
        elif isinstance(wanted, list) and isinstance(got, list) and len(got) >= len(wanted):
            for place, value in enumerate(wanted):
                self.match(value, got[place], f"{path}/{place}")
        elif wanted != got:
            raise Wrong(f"{path or 'the message'} is {got!r}, wanted {wanted!r}")

    def filled(self, said: Any) -> Any:
        """A frame with the client's own words in it."""
        if isinstance(said, dict):
            return {key: self.filled(value) for key, value in said.items()}
        if isinstance(said, list):
            return [self.filled(value) for value in said]
        return self._given.get(said, said) if isinstance(said, str) else said


class Script:
    """The lines of a file, played over as many connections as it has."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.head, self.right = lines[0], lines[-1]
        self._lines: Iterator[dict[str, Any]] = iter(lines[1:-1])
        self.failure: str | None = None
        self.over = asyncio.Event()

    async def __call__(self, line: ServerConnection) -> None:
        """Talk to one connection of the client."""
        path = (line.request.path if line.request else "").partition("?")[0]
        try:
            if self.over.is_set():
                raise Wrong("it came back, where a right client stays away")
            if path != self.head["path"]:
                raise Wrong(f"it asked for {path}, not for {self.head['path']}")
            await self._talk(line, Names())
        except (Wrong, TimeoutError) as error:
            self.failure = self.failure or str(error) or "it did not say in time what it should"
            self.over.set()
        except ConnectionClosed as error:
            self.failure = self.failure or f"it went away: {error}"
            self.over.set()

    async def _talk(self, line: ServerConnection, names: Names) -> None:
        for step in self._lines:
            if "server" in step:
                await line.send(json.dumps(names.filled(step["server"])))
            elif "raw" in step:
                await line.send(step["raw"])
            elif "client" in step:
                await self._expect(line, names, step["client"])
            elif "quiet" in step:
                await self._quiet(line, step["quiet"])
            else:
                with contextlib.suppress(ConnectionClosed):  # it may be as quick as that
                    await (await line.ping())  # it has all that was said before
                if "close" in step:
                    await line.close(step["close"])
                else:
                    line.transport.abort()
                return self._look()
        self.over.set()
        await line.wait_closed()
        return None

    def _look(self) -> None:
        """The line is closed: whether this was all."""
        rest = list(self._lines)
        self._lines = iter(rest)
        if not rest:
            self.over.set()

    async def _expect(self, line: ServerConnection, names: Names, wanted: Any) -> None:
        async with asyncio.timeout(WITHIN):
            while True:
                said = json.loads(await line.recv())
                if wanted == said or not _aside(said):
                    break
        names.match(wanted, said)

    async def _quiet(self, line: ServerConnection, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    if not _aside(said := json.loads(await line.recv())):
                        raise Wrong(f"it said {said!r}, where a right client waits")


def _aside(said: Any) -> bool:
    """What a client may say at any time."""
    return isinstance(said, dict) and bool({"pong", "unsubscribe"} & said.keys())


async def play(script: Script, command: list[str]) -> str | None:
    """What the client did wrong; None if nothing."""
    subprotocol = script.head.get("subprotocol")
    chosen = [subprotocol] if subprotocol else None
    async with serve(script, "127.0.0.1", 0, subprotocols=chosen, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        query = "" if subprotocol else f"?api_token={TOKEN}"
        given = {
            "EVENTS_URL": f"ws://127.0.0.1:{port}{script.head['path']}{query}",
            "ARVADOS_API_TOKEN": TOKEN,
            "FOLLOW": json.dumps(script.head["follow"]),
        }
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **given}
        )
        try:
            return await _watched(script, process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _watched(script: Script, process: asyncio.subprocess.Process) -> str | None:
    assert process.stdout is not None
    wanted, printed = script.right["prints"].encode(), b""
    try:
        async with asyncio.timeout(2 * WITHIN):
            await script.over.wait()
            while len(printed) < len(wanted) or script.right.get("ends"):
                if not (piece := await process.stdout.read(65536)):
                    break
                printed += piece
    except TimeoutError:
        script.failure = script.failure or "it did not end, or did not print what it was told"
    if script.failure:
        return f"{script.failure}; a right client would {script.right['right']}"
    if printed != wanted:
        return f"it printed {printed!r}, a right client prints {wanted!r}"
    return None


def main() -> None:
    """Play one file to one client."""
    parser = argparse.ArgumentParser(description="Play the frames of a server to a client.")
    parser.add_argument("frames", type=Path)
    parser.add_argument("command", nargs="+", help="of the client, behind --")
    asked = parser.parse_args()
    script = Script(lines(asked.frames))
    wrong = asyncio.run(play(script, asked.command))
    sys.exit(f"wrong: {wrong}" if wrong else 0)


if __name__ == "__main__":
    main()
