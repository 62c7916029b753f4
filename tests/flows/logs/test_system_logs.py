# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""System logs from a machine to an administrator's terminal, both as processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.stack import Stack
from tests.support.clients.terminal_command import Command, environment, ran, started


@pytest.fixture(scope="module")
def stack(own_stack: Stack) -> Stack:
    """Of this file alone: NATS goes away."""
    return own_stack


@asynccontextmanager
async def machine(stack: Stack, host: str, state: Path) -> AsyncIterator[asyncio.StreamWriter]:
    """`publishers system-logs --stdin` on a machine of this name; what is written is its log."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "arvados_nats", "publishers", "system-logs", "--stdin"),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            "ARVADOS_NATS_NATS_URL": stack.sandbox.nats.url,
            "ARVADOS_NATS_KEYS_DIR": str(stack.sandbox.keys_folder),
            "ARVADOS_NATS_SYSTEM_LOG_HOST": host,
            "ARVADOS_NATS_SYSTEM_LOG_STATE": str(state / host),
        },
    )
    assert process.stdin is not None
    try:
        yield process.stdin
        process.stdin.close()
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def write(log: asyncio.StreamWriter, **fields: Any) -> None:
    log.write(json.dumps(fields).encode() + b"\n")


def shown(command: Command) -> list[tuple[str, str]]:
    records = [json.loads(line)["record"] for line in bytes(command.out).splitlines()]
    return [(record["host"], record["message"]) for record in records]


async def test_an_administrator_sees_what_machines_say(stack: Stack, tmp_path: Path) -> None:
    """The oldest first, then live, each once, also over a restart of NATS; filtered as asked."""
    url = stack.sandbox.nats.url
    boss = await stack.sandbox.cluster.user("boss", admin=True)
    env = environment(stack, boss, tmp_path)
    arguments = ("watch", "system-logs", "--nats", url, "--json", "--oldest")
    async with machine(stack, "node1", tmp_path) as one, machine(stack, "node2", tmp_path) as two:
        write(one, message="first", unit="crunch.service", priority=3)
        async with (
            started(*arguments, env=env) as everything,
            started(*arguments, "--host", "node1", "--unit", "crunch", env=env) as crunch,
            started(*arguments, "--priority", "err", env=env) as bad,
        ):
            for command in (everything, crunch, bad):
                await command.shows(b"first")
            write(two, message="second", unit="crunch.service", priority="debug")
            await everything.shows(b"second")
            await stack.sandbox.nats.restart()
            write(one, message="third", unit="sshd.service", priority="crit")
            await bad.shows(b"third")
            write(one, message="last", unit="crunch.service", priority="err")
            for command in (everything, crunch, bad):
                await command.shows(b"last")
            first, second = ("node1", "first"), ("node2", "second")
            third, last = ("node1", "third"), ("node1", "last")
            assert shown(everything) == [first, second, third, last]
            assert shown(crunch) == [first, last]
            assert shown(bad) == [first, third, last]


async def test_nobody_else_sees_them(stack: Stack, tmp_path: Path) -> None:
    """A user is told why."""
    alice = await stack.sandbox.cluster.user("alice")
    env = environment(stack, alice, tmp_path)
    code, out, said = await ran(
        "watch", "system-logs", "--nats", stack.sandbox.nats.url, "--oldest", env=env
    )
    assert (code, out) == (1, b"")
    assert "only administrators may watch system logs" in said
