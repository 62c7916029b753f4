# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats logs` as a process, with everything behind it as processes too."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import signal
from pathlib import Path

import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.contract.subjects import is_uuid
from arvados_nats.nats.client import Nats
from bench import processes
from sandbox.logs.log_files import NumberedLines
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.servers import ports
from sandbox.stack import Stack
from tests.support import long_ago
from tests.support.clients.terminal_command import environment, ran, started
from tests.support.waiting import until

STAMP = "2026-01-02T03:04:{:02d}.000000000Z {}\n"


def line(second: int, text: str) -> bytes:
    return STAMP.format(second, text).encode()


FILES = {
    "stdout.txt": b"".join(line(n % 60, f"caf\u00e9 \U0001f600 {n}") for n in range(5000)),
    "binary.bin": random.Random(1).randbytes(300_000),
    "nul.txt": b"a\0b\n\0\0\n" * 1000,
    "crlf.txt": b"one\r\ntwo\r\n10 %\r20 %\r100 %\r\n",
    "half.txt": b"no final line end",
    "invalid.txt": b"ok\n\xff\xfe broken \xc3\n\xf0\x9f\x98" + b"x" * 40_000 + b"\xe2\x82",
    "long.txt": b"y" * 400_000 + b"\n",
}


@pytest.fixture
async def alice(stack: Stack) -> Actor:
    return await stack.sandbox.cluster.user("alice")


@pytest.fixture
def env(stack: Stack, alice: Actor, tmp_path: Path) -> dict[str, str]:
    return environment(stack, alice, tmp_path)


async def running(stack: Stack, owner: Actor, name: str = "logs") -> tuple[Record, Record]:
    """A request and its container, which runs."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request(name, owner=owner)
    return request, await cluster.run(request)


def write(stack: Stack, container: Record, file: str, data: bytes) -> None:
    stack.sandbox.cluster.logs.append(container.uuid, file, data)


async def test_every_file_is_copied_byte_for_byte(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """One file into a pipe is what the container wrote, followed live and read after the end."""
    request, container = await running(stack, alice)
    async with asyncio.TaskGroup() as tasks:
        following = {
            file: tasks.create_task(ran("logs", "-f", request.uuid, "--file", file, env=env))
            for file in ("stdout.txt", "binary.bin", "invalid.txt")
        }
        await _write_in_pieces(stack, container)
        await stack.sandbox.cluster.finish(container)
    for file, task in following.items():
        assert task.result() == (0, FILES[file], ""), file
    for file, data in FILES.items():
        assert await ran("logs", container.uuid, "--file", file, env=env) == (0, data, ""), file


async def _write_in_pieces(stack: Stack, container: Record) -> None:
    """All files, cut anywhere, in some time."""
    cut = random.Random(2)
    left = {file: memoryview(data) for file, data in FILES.items()}
    while left:
        file = cut.choice(sorted(left))
        size = cut.randint(1, 60_000)
        write(stack, container, file, bytes(left[file][:size]))
        left[file] = left[file][size:]
        if not left[file]:
            del left[file]
        await asyncio.sleep(0.01)


async def test_a_terminal_says_why_nothing_comes_yet(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """As the state changes, in a line that is gone when the log begins."""
    request = await stack.sandbox.cluster.container_request("later", owner=alice)
    command = started("logs", "-f", request.uuid, env=env, terminal=True, notes_too=True)
    async with command as following:
        await following.shows(b"queued for ")
        await following.shows(b", priority 500")
        container = await stack.sandbox.cluster.run(request)
        await following.shows(b"running for ")
        write(stack, container, "stdout.txt", line(1, "at last"))
        await following.shows(b"at last")
        await stack.sandbox.cluster.finish(container)
        assert await following.end() == 0
    *_, last = bytes(following.out).rpartition(b"\x1b[K")
    assert b"at last" in last
    assert b"running" not in last


async def test_files_are_merged_by_time(stack: Stack, alice: Actor, env: dict[str, str]) -> None:
    """A traceback stays whole (docs/facts/arvados-demand.md W5), and order is that of time."""
    _, container = await running(stack, alice)
    write(stack, container, "node-info.txt", b"Host Information\nLinux\n")
    traceback = b'Traceback (most recent call last):\n  File "x"\nValueError\n'
    write(stack, container, "stderr.txt", line(2, "failing") + traceback + line(5, "bye"))
    write(stack, container, "stdout.txt", line(1, "one") + line(3, "three") + b"half")
    await stack.sandbox.cluster.finish(container)
    merged = [line(1, "one"), line(2, "failing"), traceback, line(3, "three")]
    expected = b"".join([b"Host Information\nLinux\n", *merged, b"half\n", line(5, "bye")])
    assert await ran("logs", container.uuid, env=env) == (0, expected, "")
    _, bare, _ = await ran("logs", container.uuid, "--no-timestamps", "--names", env=env)
    assert b"stdout    | one\n" in bare
    assert b"2026" not in bare
    code, last, _ = await ran("logs", container.uuid, "-n", "1", "--file", "stderr", env=env)
    assert (code, last) == (0, line(5, "bye"))


async def test_live_line_appears_at_once_and_half_a_line_at_the_end(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """Following shows a line when it is written, and what was left open at the end."""
    request, container = await running(stack, alice)
    write(stack, container, "stdout.txt", b"first\n")
    async with started("logs", "-f", request.uuid, env=env) as command:
        await command.shows(b"first\n")
        write(stack, container, "stdout.txt", b"second\n")
        await command.shows(b"second\n")
        write(stack, container, "stdout.txt", b"--end--")
        await stack.sandbox.cluster.finish(container)
        assert await command.end() == 0
        assert bytes(command.out) == b"first\nsecond\n--end--"
        assert command.said == ""


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_restart_of_the_proxy_costs_nothing(
    stack: Stack, alice: Actor, env: dict[str, str], how: str
) -> None:
    """The command comes back by itself; every byte is there once."""
    request, container = await running(stack, alice)
    written = b"".join(line(n % 60, f"line {n}") for n in range(3000))
    proxy = stack.services["wsproxy"]
    async with (
        started("logs", "-f", request.uuid, "--file", "stdout", env=env) as copied,
        started("logs", "-f", request.uuid, "--exit-code", env=env) as merged,
    ):
        write(stack, container, "stdout.txt", written[:50_000])
        await copied.shows(written[40_000:50_000])
        await merged.shows(written[40_000:49_000])
        await (proxy.stop() if how == "stop" else proxy.kill())
        write(stack, container, "stdout.txt", written[50_000:90_000])
        await proxy.start()
        write(stack, container, "stdout.txt", written[90_000:])
        await stack.sandbox.cluster.finish(container, exit_code=4)
        assert await copied.end() == 0
        assert await merged.end() == 4
        assert bytes(copied.out) == bytes(merged.out) == written


async def test_retry_is_followed(stack: Stack, alice: Actor, env: dict[str, str]) -> None:
    """The first node died, and with the settings as they are delivered its end is not settled for
    15 s: lines of the next attempt are shown at once, and a copy has one attempt after the other
    (docs/facts/arvados-demand.md A37, W2)."""
    cluster = stack.sandbox.cluster
    request, first = await running(stack, alice)
    follow = ("logs", "-f", request.uuid)
    async with (
        started(*follow, "--exit-code", env=env) as command,
        started(*follow, "--file", "stdout", env=env) as copy,
    ):
        write(stack, first, "stdout.txt", b"of the first attempt\n")
        for one in (command, copy):
            await one.shows(b"of the first attempt\n")
        await cluster.cancel(first)
        second = await cluster.run(request)
        assert second.uuid != first.uuid
        write(stack, second, "stdout.txt", b"2nd\n")
        await command.shows(b"2nd\n", within=60)
        await cluster.finish(second, exit_code=7)
        assert await command.end() == 7
        assert await copy.end() == 0
        for one in (command, copy):
            assert bytes(one.out) == b"of the first attempt\n2nd\n"
            assert f"attempt 2: container {second.uuid}" in one.said
            assert f"{first.uuid} stdout.txt: no saved log confirms" in one.said


async def test_exit_code_is_the_containers(stack: Stack, alice: Actor, env: dict[str, str]) -> None:
    """Complete: its own; cancelled: 1; not ended: 75; without the option: 0."""
    cluster = stack.sandbox.cluster
    request, container = await running(stack, alice)
    assert (await ran("logs", request.uuid, "--exit-code", env=env))[0] == 75
    await cluster.finish(container, exit_code=3)
    for uuid in (request.uuid, container.uuid):
        assert (await ran("logs", uuid, "--exit-code", env=env))[0] == 3
        assert (await ran("logs", uuid, env=env))[0] == 0
    other = await cluster.container_request("cancelled", owner=alice, container_count_max=1)
    assert (await ran("logs", other.uuid, "--exit-code", env=env))[0] == 75
    await cluster.run(other)
    await cluster.cancel(other)
    assert (await ran("logs", "-f", other.uuid, "--exit-code", env=env))[0] == 1


async def test_short_container_that_ended_before(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """Following what is over already shows all of it and ends (docs/facts/arvados-demand.md G2)."""
    request, container = await running(stack, alice)
    write(stack, container, "stdout.txt", b"last words\n")
    await stack.sandbox.cluster.finish(container)
    for arguments in (("-f",), ()):
        for uuid in (container.uuid, request.uuid):
            assert await ran("logs", *arguments, uuid, env=env) == (0, b"last words\n", "")


async def test_a_large_log_costs_no_memory(stack: Stack, alice: Actor, env: dict[str, str]) -> None:
    """100 MB that only Arvados has, to one reader: every byte, and the proxy stays as it is
    (docs/facts/arvados-demand.md G17; `python -m bench logs` reads 1 GB)."""
    source = NumberedLines(1_000_000)
    request = await long_ago.ended(stack, alice, source)
    proxy = stack.services["wsproxy"].process
    assert proxy is not None
    before = processes.resident(proxy.pid)
    code, out, said = await ran("logs", request.uuid, "--file", "stdout", env=env)
    assert (code, said) == (0, "")
    assert hashlib.sha256(out).digest() == hashlib.sha256(source.read(0, source.size)).digest()
    assert processes.resident(proxy.pid) - before < 64 * 2**20


async def test_nothing_there_is_said(stack: Stack, alice: Actor, env: dict[str, str]) -> None:
    """No container yet, a container without a line, a file that is not there: words, no hanging."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("queued", owner=alice)
    code, out, said = await ran("logs", request.uuid, env=env)
    assert (code, out) == (0, b"")
    assert re.fullmatch(
        r"arvados-nats: nothing has been logged yet: queued for \d+ s, priority 500\n", said
    )
    container = await cluster.run(request)
    write(stack, container, "stdout.txt", b"text\n")
    await cluster.finish(container)
    code, out, said = await ran("logs", "-f", container.uuid, "--file", "stderr", env=env)
    assert (code, out) == (0, b"")
    assert said == "arvados-nats: nothing has been logged in stderr.txt\n"
    assert await ran("logs", "-n", "0", container.uuid, env=env) == (0, b"", "")


@pytest.mark.parametrize(
    "wrong", ["token", "undefined", "uuid", "foreign", "proxy", "path", "host"]
)
async def test_what_is_wrong_is_said(
    stack: Stack, alice: Actor, env: dict[str, str], wrong: str
) -> None:
    """One line that says what to do, exit code 1 or 2, and no token in it."""
    request, _ = await running(stack, alice)
    uuid, words, options, exit_code = request.uuid, "", [], 1
    nobody = f"ws://127.0.0.1:{next(ports.candidates())}"
    match wrong:
        case "token" | "undefined":
            token = "undefined" if wrong == "undefined" else f"{alice.token[:-3]}xxx"
            env, words = {**env, "ARVADOS_API_TOKEN": token}, "does not accept the token"
        case "uuid":
            uuid, words = f"{request.uuid[:-6]}000000", "no such object, or it may not be read"
        case "foreign":
            bob = await stack.sandbox.cluster.user("bob")
            foreign, _ = await running(stack, bob)
            uuid, words = foreign.uuid, "no such object, or it may not be read"
        case "proxy":
            options, words = ["--proxy", nobody], "Connection refused"
        case "path":
            options = ["--proxy", f"http://{stack.sandbox.api.host}"]
            words, exit_code = "no message proxy is found at", 2
        case "host":
            env, words = {**env, "ARVADOS_API_HOST": nobody[5:]}, "check ARVADOS_API_HOST"
    code, out, said = await ran("logs", uuid, *options, env=env)
    assert (code, out) == (exit_code, b"")
    assert words in said
    assert said.count("\n") == 1 or wrong == "proxy"
    assert "Traceback" not in said
    assert env["ARVADOS_API_TOKEN"] not in said.replace("undefined", "", wrong != "undefined")


async def test_bad_arguments_are_refused(env: dict[str, str]) -> None:
    """A uuid of anything else than a container or request is told before anybody is asked."""
    assert is_uuid("zzzzz-4zz18-000000000000000")
    for uuid in ("zzzzz-4zz18-000000000000000", "zzzzz-j7d0g-000000000000000"):
        code, _, said = await ran("logs", uuid, env=env)
        assert code == 2
        assert "not the uuid of a container" in said


async def test_ctrl_c_ends_with_130(stack: Stack, alice: Actor, env: dict[str, str]) -> None:
    """As every command that was interrupted, and without a traceback."""
    request, container = await running(stack, alice)
    write(stack, container, "stdout.txt", b"text\n")
    async with started("logs", "-f", request.uuid, env=env) as command:
        await command.shows(b"text\n")
        command.process.send_signal(signal.SIGINT)
        assert await command.end(20) == 130
        assert command.said == ""


async def test_reader_that_leaves_ends_the_command(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """`logs -f … | head -1` is over when head is, even if the container says nothing more."""
    request, container = await running(stack, alice)
    write(stack, container, "stdout.txt", b"text\n")
    async with started("logs", "-f", request.uuid, env=env) as command:
        await command.shows(b"text\n")
        transport = command.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        transport.close()
        assert await command.process.wait() == 141
        assert command.said == ""


async def test_terminal_gets_names_and_colours_and_nothing_else(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """On a terminal lines have their file's name; of the log's control characters colours pass."""
    request, container = await running(stack, alice)
    evil = b"\x1b]0;owned\x07\x1b[2J\x1b[32mgreen\x1b[0m \x9b2J\x08\x07 \xff\n"
    write(stack, container, "stdout.txt", evil + b"10 %\r20 %\n")
    write(stack, container, "stderr.txt", b"half")
    async with started("logs", "-f", request.uuid, env=env, terminal=True) as command:
        await command.shows(b"20 %")
        await stack.sandbox.cluster.finish(container)
        assert await command.end() == 0
        shown = bytes(command.out).replace(b"\r\n", b"\n")
    assert b"stdout | \x1b[0m\x1b[32mgreen\x1b[0m \\x9b2^G \\xff\n" in shown
    assert b"20 %\n" in shown
    assert b"10 %" not in shown
    assert shown.endswith(b"\x1b[31mstderr | \x1b[0mhalf\n")
    assert b"\x1b[2J" not in shown
    assert b"\x1b]" not in shown
    plain = {**env, "NO_COLOR": "1"}
    async with started("logs", request.uuid, env=plain, terminal=True) as command:
        assert await command.end() == 0
        assert b"\x1b" not in command.out


@pytest.mark.parametrize("how", ["unshared", "logged out"])
async def test_permission_that_is_taken_ends_it(
    stack: Stack, alice: Actor, tmp_path: Path, how: str
) -> None:
    """What was shown stays; then it is over, with the reason and exit code 1."""
    cluster = stack.sandbox.cluster
    request, container = await running(stack, alice)
    bob = await cluster.user("bob")
    await cluster.share(request, bob)
    write(stack, container, "stdout.txt", b"seen\n")
    env = environment(stack, bob, tmp_path)
    async with started("logs", "-f", request.uuid, env=env) as command:
        await command.shows(b"seen\n")
        if how == "unshared":
            await cluster.unshare(request, bob)
            words = f"{request.uuid}: the permission to read this is gone"
        else:
            await cluster.logout(bob)
            words = "does not accept the token (token"
        await command.tells(words)
        write(stack, container, "stdout.txt", b"secret\n")
        assert await command.end() == 1
        assert bytes(command.out) == b"seen\n"


async def test_lines_are_chosen_by_time_text_and_kind(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """`--since`, `--until`, `--grep`, `--main` and `--json`, alone and together."""
    _, container = await running(stack, alice)
    coloured = line(3, "\x1b[31mtem\x1b[0mplate broken")
    write(stack, container, "stderr.txt", line(2, "failing") + b"  at step 7\n" + coloured)
    write(stack, container, "stdout.txt", line(1, "one") + line(4, "caf\xe9 four"))
    write(stack, container, "crunchstat.txt", line(3, "statistics"))
    await stack.sandbox.cluster.finish(container)

    async def shown(*options: str) -> bytes:
        code, out, said = await ran("logs", container.uuid, *options, env=env)
        assert (code, said) == (0, "")
        return out

    trace = line(2, "failing") + b"  at step 7\n"
    assert await shown("--until", "2026-01-02T03:04:02Z") == line(1, "one") + trace
    since = await shown("--since", "2026-01-02T03:04:03Z", "--main")
    assert since == coloured + line(4, "caf\xe9 four")
    assert await shown("--since", "1h", "--until", "2s") == b"", "all of it is older"
    assert await shown("--grep", "template|STEP") == coloured
    assert await shown("--grep", "(?i)STEP") == b"  at step 7\n"
    objects = [json.loads(one) for one in (await shown("--json", "--file", "stdout")).splitlines()]
    own = {"container": container.uuid, "file": "stdout.txt"}
    assert objects == [
        {**own, "time": "2026-01-02T03:04:01.000000000Z", "text": "one"},
        {**own, "time": "2026-01-02T03:04:04.000000000Z", "text": "caf\xe9 four"},
    ]
    assert await shown("--json", "--file", "stdout", "--grep", "nothing") == b""


async def test_processes_are_named_and_attempts_chosen(
    stack: Stack, nats: Nats, tmp_path: Path
) -> None:
    """My newest one, one by its name, several at once, an attempt that nobody watched; a list of
    all that."""
    cluster = stack.sandbox.cluster
    dora = await cluster.user("dora-of-names")
    env = environment(stack, dora, tmp_path)
    assert (await ran("logs", env=env))[::2] == (
        1,
        "arvados-nats: you have begun no process yet; name one by its uuid or its name\n",
    )
    request = await cluster.container_request("align reads", owner=dora, container_count_max=2)
    first = await cluster.run(request)
    write(stack, first, "stderr.txt", b"why it failed\n")
    async with started("logs", "-f", first.uuid, env=env) as command:
        await command.shows(b"why it failed")
        # A dead node's log is what was streamed of it; the command may have it of Arvados.

        async def streamed() -> bool:
            subject = subjects.log(first.uuid, "stderr.txt")
            return await nats.last(streams.LOGS, subject) is not None

        await until(streamed)
    await cluster.cancel(first)
    second = await cluster.run(request)
    write(stack, second, "stderr.txt", b"again\n")
    await cluster.finish(second)
    other = await cluster.container_request("call variants", owner=dora)
    third = await cluster.run(other)
    write(stack, third, "stdout.txt", b"called\n")
    await cluster.finish(third)

    named = f"arvados-nats: {other.uuid} call variants\n"
    assert await ran("logs", env=env) == (0, b"called\n", named)
    code, out, said = await ran("logs", "-f", "align", "--attempt", "1", env=env)
    assert (code, out) == (0, b"why it failed\n"), said
    code, out, said = await ran("logs", "-f", "--attempt", "2", request.uuid, env=env)
    assert (code, out, said) == (0, b"again\n", "")
    code, out, said = await ran("logs", "--attempt", "3", request.uuid, env=env)
    assert (code, out) == (1, b"")
    assert "no attempt 3 is known; known: 1, 2" in said
    for follow in ((), ("-f",)):
        code, out, said = await ran("logs", *follow, "call variants", request.uuid, env=env)
        assert code == 0
        assert b"call variants stdout | called\n" in out
        assert f"{request.uuid} stderr | again\n".encode() in out
    gone = "zzzzz-xvhdp-000000000000000"
    code, out, said = await ran("logs", gone, other.uuid, env=env)
    assert (code, b"called\n" in out, gone in said) == (1, True, True)
    assert (
        "no container request that you can see is named 'nobody'"
        in (await ran("logs", "nobody", env=env))[2]
    )

    code, out, _ = await ran("logs", "--list", env=env)
    assert [row.split()[0].decode() for row in out.splitlines()] == [other.uuid, request.uuid]
    code, out, _ = await ran("logs", "--list", "--json", request.uuid, env=env)
    files = [
        (row["attempt"], row["container"], row["file"], row["size"])
        for row in map(json.loads, out.splitlines())
        if row["file"] != "crunch-run.txt"
    ]
    assert files == [(1, first.uuid, None, 0), (2, second.uuid, "stderr.txt", 6)], "its node died"

    for n in range(20):
        await cluster.container_request(f"later {n}", owner=dora)
    code, out, said = await ran("logs", "--list", env=env)
    assert (code, len(out.splitlines()), "the newest 20" in said) == (0, 20, True)


async def test_completion_offers_my_processes(stack: Stack, tmp_path: Path) -> None:
    """What a shell asks the command for, as the guide sets it up; nothing without Arvados."""
    cluster = stack.sandbox.cluster
    erna = await cluster.user("erna-of-shells")
    request = await cluster.container_request("sort reads", owner=erna)
    asks = {"_ARVADOS_NATS_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    env = environment(stack, erna, tmp_path, COMP_WORDS="arvados-nats logs zz", **asks)
    assert await ran(env=env) == (0, f"plain,{request.uuid}\n".encode(), "")
    nobody = {**env, "ARVADOS_API_HOST": "127.0.0.1:1"}
    assert await ran(env=nobody) == (0, b"\n", "")
