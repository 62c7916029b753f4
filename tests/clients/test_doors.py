# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The first programs of docs/doors.md, out of the page as they stand, all of a language at once."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.clients import programs
from tests.clients.programs import Missing, Program, running
from tests.support import node

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "doors.md").read_text(encoding="utf-8")
HERE = Path(__file__).parent / "doors"
DOORS = ("sse", "v1", "native", "queue", "wamp", "v0")
LIBRARY = ("log", "object")
"""Of v1, by the libraries that do all of it."""
CHANGES = ("v1", "native", "wamp", "v0")
_NOTHING = re.compile(rb"(None|undefined|<nil>)? (None|undefined|<nil>)?")
"""Printed of a message that is no event."""
SHOWN = {
    (language, door): code
    for language, door, code in re.findall(
        r"<!-- (\w+) (\w+) -->\n```\w+\n(.*?)```\n", PAGE, re.DOTALL
    )
}
ENDINGS = {"python": "py", "js": "mjs", "ruby": "rb", "curl": "sh"}


def test_each_language_has_each_door_that_it_can() -> None:
    """And the table says where it has none."""
    for language in ("python", "js"):
        assert {door for of, door in SHOWN if of == language} == {*DOORS, *LIBRARY}
    assert {door for of, door in SHOWN if of == "go"} == set(DOORS)
    assert {door for of, door in SHOWN if of == "ruby"} == {"sse", "native", "queue"}
    assert {door for of, door in SHOWN if of == "curl"} == {"sse"}
    for name in ("Go", "Python", "JavaScript", "Ruby", "curl"):
        assert f"| [{name}](#{name.lower()}) |" in PAGE
        assert f"## {name}\n" in PAGE


def commands(language: str, folder: Path) -> dict[str, Sequence[str]]:
    """By door, how to start the program of the page; Missing says what is not here."""
    codes = {door: code for (of, door), code in SHOWN.items() if of == language}
    if language == "go":
        return _go(codes, folder)
    for door, code in codes.items():
        (folder / f"first_{door}.{ENDINGS[language]}").write_text(code)
    words = {"python": [sys.executable], "curl": ["bash"], "js": node.command(), "ruby": ["ruby"]}
    if language == "js":
        _modules(folder)
    elif language == "ruby":
        if shutil.which("ruby") is None:
            raise Missing("ruby is not installed")
        codes = {door: codes[door] for door in codes if door == "sse" or programs.has_nats_pure()}
    return {
        door: [*words[language], str(folder / f"first_{door}.{ENDINGS[language]}")]
        for door in codes
    }


def _go(codes: Mapping[str, str], folder: Path) -> dict[str, Sequence[str]]:
    for name in ("go.mod", "go.sum"):
        shutil.copy(HERE / name, folder)
    for door, code in codes.items():
        (folder / door).mkdir()
        (folder / door / "main.go").write_text(code)
    (folder / "bin").mkdir()
    programs.run([programs.tool("go"), "build", "-o", "bin/", "./..."], folder)
    return {door: [str(folder / "bin" / door)] for door in codes}


def _modules(folder: Path) -> None:
    npm = programs.tool("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    programs.run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
    module = folder / "node_modules" / "arvados-events"
    shutil.copytree(ROOT / "web" / "arvados-events", module)


@dataclass(frozen=True, slots=True)
class World:
    """A project that was shared with alice, a container in it that runs, and an administrator."""

    stack: Stack
    project: Record
    owner: Actor
    reader: Actor
    request: Record
    container: Record
    environment: dict[str, str]
    admins: dict[str, str]

    async def make(self) -> str:
        """A collection in the project."""
        made = await self.stack.sandbox.cluster.collection(owner=self.project, by=self.owner)
        return str(made.uuid)

    async def narrow(self) -> None:
        """Alice may read less than before, which some doors tell beside the events."""
        cluster = self.stack.sandbox.cluster
        other = await cluster.project(owner=self.owner)
        await cluster.share(other, self.reader)
        await cluster.unshare(other, self.reader)


@pytest.fixture
async def world(stack: Stack) -> World:
    cluster = stack.sandbox.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    boss = await cluster.user("boss", admin=True)
    project = await cluster.project(owner=bob)
    await cluster.share(project, alice)
    request = await cluster.container_request(owner=project, by=bob)
    container = await cluster.run(request)
    await cluster.write_log(container, "stderr.txt", b"one\n")
    environment = {
        "ARVADOS_API_TOKEN": alice.token,
        "HTTP_URL": stack.page_url,
        "WS_URL": stack.stream_url.removesuffix("/v1/stream"),
        "NATS_URL": stack.sandbox.nats.url,
        "REQUEST": request.uuid,
        "PROJECT": project.uuid,
        "PYTHONUNBUFFERED": "1",
    }
    admins = {**environment, "ARVADOS_API_TOKEN": boss.token}
    return World(stack, project, bob, alice, request, container, environment, admins)


@pytest.mark.parametrize("language", ["curl", "python", "js", "go", "ruby"])
async def test_first_programs_run_as_they_stand(
    world: World, language: str, tmp_path: Path
) -> None:
    """Each hears of changes that are made while it is there, or tells a log to its end."""
    try:
        found = commands(language, tmp_path)
    except Missing as reason:
        pytest.skip(f"{language}: {reason}")
    async with AsyncExitStack() as all_of_them:
        started: dict[str, Program] = {}
        for door, command in found.items():
            given = world.admins if door == "queue" else world.environment
            begun = running(command, environment=given)
            started[door] = await all_of_them.enter_async_context(begun)
        following = {door: one for door, one in started.items() if door in CHANGES}
        await _hear(world, following)
        await world.narrow()
        await _hear(world, {door: following[door] for door in following.keys() & {"v1", "wamp"}})
        for door, program in following.items():
            strange = [line for line in program.lines if _NOTHING.fullmatch(line)]
            assert not strange, f"{door} took what is no event for one: {program.lines}"
        if "queue" in started:
            await _queue(world, started["queue"])
        if "object" in started:
            await _tells(started["object"], b"Committed Running")
        logs = [started[door] for door in ("sse", "log") if door in started]
        await _log(world, logs, raw=language == "curl")
        if "object" in started:
            await _tells(started["object"], b"Final Complete")
    if left := {door for of, door in SHOWN if of == language} - found.keys():
        pytest.skip(f"{language}: not {', '.join(sorted(left))}: {programs.NO_NATS_PURE}")


async def _hear(world: World, following: Mapping[str, Program]) -> None:
    """Collections are made until each program has told of one."""
    made: list[str] = []

    def told(program: Program) -> bool:
        return any(f"create {uuid}".encode() in program.lines for uuid in made)

    deadline = asyncio.get_running_loop().time() + 120
    while missing := [door for door, one in following.items() if not told(one)]:
        made.append(await world.make())
        for door in missing:
            program = following[door]
            late = asyncio.get_running_loop().time() > deadline
            assert not late, f"{door} told of none: {program.said}, {bytes(program.output)!r}"
            await program.soon(partial(told, program), 3)


async def _queue(world: World, program: Program) -> None:
    cluster = world.stack.sandbox.cluster
    request = await cluster.container_request(owner=world.project, by=world.owner, priority=7)
    uuid = request["container_uuid"].encode()

    def shows() -> bool:
        return any(line.startswith(b"Queued " + uuid) for line in program.lines)

    await program.until(shows, "shows the container", 120)
    await cluster.update(request, {"priority": 0}, world.owner)
    await program.until(
        lambda: any(uuid + b" 0" in line for line in program.lines), "shows it on hold", 120
    )


async def _tells(program: Program, line: bytes) -> None:
    await program.until(lambda: line in program.lines, f"tells {line!r}", 120)


async def _log(world: World, reading: Sequence[Program], *, raw: bool) -> None:
    cluster = world.stack.sandbox.cluster
    await cluster.write_log(world.container, "stderr.txt", b"two\n")
    await cluster.finish(world.request)
    for program in reading:
        assert await program.ends(120) == 0, program.said
        output = bytes(program.output)
        if raw:
            lines = [line for line in output.splitlines() if line.startswith(b"data: {")]
            told = [json.loads(line[6:]) for line in lines]
            output = "".join(line["log"]["text"] for line in told if "log" in line).encode()
        assert output == b"one\ntwo\n"
