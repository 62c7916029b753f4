# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A machine that sends its system log, with a key of its own, and all the other machines."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from arvados_nats.admin.keys_cli import keys as keys_command
from arvados_nats.contract import streams, subjects, system_log_records
from arvados_nats.errors import ConfigError, Refused, Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Message, Nats
from arvados_nats.service import keys, machine_keys
from publishers.system_logs import cli as system_logs_cli
from publishers.system_logs.cli import SystemLogSettings
from sandbox.model.records import random_name
from sandbox.stack import Stack
from tests.support.waiting import until


def hosts() -> tuple[str, str]:
    """Two machines that no other test has."""
    one, other = (f"{random_name(8)}.example.com" for _ in range(2))
    return one, other


SYSLOG = subjects.SYSTEM_LOGS
CHANGES = ("INFO", "UPDATE", "PURGE", "DELETE")


def key(stack: Stack, host: str) -> str:
    """What an administrator puts on a machine."""
    folder = stack.sandbox.keys_folder
    made = CliRunner().invoke(keys_command, ["machine", host, str(folder)])
    assert made.exit_code == 0, made.output
    return made.output.strip()


def settings(stack: Stack, folder: Path, key: str, host: str) -> SystemLogSettings:
    """A machine with a key."""
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "system-logs.nk").write_text(f"{key}\n")
    return SystemLogSettings(
        nats_url=stack.sandbox.nats.url,
        keys_dir=folder / "keys",
        system_log_host=host,
        system_log_state=folder / "state",
    )


async def piped(chosen: SystemLogSettings, data: bytes) -> None:
    """The command at the end of a pipe with these lines."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        async with asyncio.timeout(60):
            await system_logs_cli.send(chosen, piped=True, source=reading)
    finally:
        os.close(reading)


async def said(nats: Nats, host: str) -> list[str]:
    """What the stream has of a machine."""
    history = nats.history(streams.SYSTEM_LOGS, subjects.system_logs_of(host))
    return [system_log_records.decode(stored.data).message async for stored in history]


async def test_a_machine_sends_with_a_key_of_its_own(
    stack: Stack, nats: Nats, tmp_path: Path
) -> None:
    """Each record once, over restarts and a lost place, though it reads nothing but its last."""
    host, _ = hosts()
    chosen = settings(stack, tmp_path, key(stack, host), host)
    await piped(chosen, b'{"message": "one"}\n{"message": "two", "unit": "u"}\n')
    await piped(chosen, b'{"message": "three"}\n')
    assert await said(nats, host) == ["one", "two", "three"]


async def test_a_machine_writes_and_reads_as_itself_alone(
    stack: Stack, nats: Nats, tmp_path: Path
) -> None:
    """Not another's subjects, records, last record, nor any stream; its own last it may."""
    host, other = hosts()
    for machine_name in (host, other):
        record = b'{"at":"","host":"x","unit":"u","priority":6,"message":"secret"}'
        await (await nats.publish_stored(subjects.system_log(machine_name, "u"), record, {}))
    token = subjects.file_token(host)
    heard: list[str] = []

    async def hear(message: Message) -> None:
        heard.append(message.subject)

    async with nats_client.connect(
        [stack.sandbox.nats.url],
        name="machine",
        token=key(stack, host),
        inbox_prefix=subjects.inbox_prefix(f"system-logs-{token}"),
        timeout=10,
    ) as machine:
        last = await machine.last(streams.SYSTEM_LOGS, subjects.system_logs_of(host))
        assert last is not None and last.data == record
        for pattern in (f"{SYSLOG}.>", subjects.stored(f"{SYSLOG}.>"), "_INBOX_system-logs.>"):
            await machine.subscribe(pattern, hear)
        get = f"$JS.API.DIRECT.GET.{streams.SYSTEM_LOGS}"
        for call, body in (
            (get, b'{"seq":1}'),
            (get, b'{"last_by_subj":"arvados.syslog.>"}'),
            (f"{get}.{subjects.system_logs_of(other)}", b""),
            (f"{get}.{SYSLOG}.>", b""),
            (f"{get}.{SYSLOG}.*.u", b""),
            *((f"$JS.API.STREAM.{call}.{streams.SYSTEM_LOGS}", b"{}") for call in CHANGES),
            ("$JS.API.INFO", b""),
            (f"{subjects.GRANTS_CHANGED}.x", b"forged"),
            (subjects.system_log(other, "u"), b"forged"),
            (subjects.log("zzzzz-dz642-000000000000000", "x"), b"forged"),
        ):
            with pytest.raises(Unavailable):
                await machine.request(call, body, timeout=0.2)
    assert heard == [] and await said(nats, other) == ["secret"]


@pytest.mark.parametrize("kind", ["another's proof", "another seed", "no proof", "a container"])
async def test_a_forged_key_lets_nobody_in(stack: Stack, kind: str) -> None:
    """A name proves nothing without the seed."""
    host, other = hosts()
    own, name = key(stack, host), subjects.file_token(other)
    forged = {
        "another's proof": f"machine/{name}/{own.rpartition('/')[2]}",
        "another seed": machine_keys.make(keys.generate(keys.Kind.USER), host),
        "no proof": f"machine/{name}/",
        "a container": own.replace(host.partition(".")[0], "*"),
    }[kind]
    with pytest.raises(Refused):
        async with nats_client.connect(
            [stack.sandbox.nats.url], name="forger", token=forged, timeout=10
        ):
            pass


async def test_a_machine_waits_until_its_key_is_known(stack: Stack, tmp_path: Path) -> None:
    """What its pipe says meanwhile is kept: a refusal may mean that nobody is there to decide."""
    host, _ = hosts()
    wrong = machine_keys.make(keys.generate(keys.Kind.USER), host)
    chosen = settings(stack, tmp_path, wrong, host)
    sending = asyncio.create_task(piped(chosen, b'{"message": "one"}\n'))
    pipe = tmp_path / "state" / "pipe"
    await until(lambda: any(path.stat().st_size for path in pipe.glob("*")), "the line is kept")
    (tmp_path / "keys" / "system-logs.nk").write_text(f"{key(stack, host)}\n")
    await sending


async def test_a_key_of_another_machine_is_told_at_the_start(stack: Stack, tmp_path: Path) -> None:
    """It would be refused for each record."""
    host, other = hosts()
    with pytest.raises(ConfigError, match=f"is that of {subjects.file_token(other)}"):
        await piped(settings(stack, tmp_path, key(stack, other), host), b"")


async def test_no_machine_uses_up_the_ids_of_another(
    stack: Stack, nats: Nats, tmp_path: Path
) -> None:
    """Whatever ids the other has sent before: the place, its digest, those that were seen."""
    host, other = hosts()
    chosen = settings(stack, tmp_path, key(stack, host), host)
    await piped(chosen, b'{"message": "one"}\n')
    first = await nats.last(streams.SYSTEM_LOGS, subjects.system_logs_of(host))
    assert first is not None
    place = first.headers["Arvados-Cursor"]
    pipe, _, end = place.partition(":")
    for id in (place, first.headers["Nats-Msg-Id"], f"{pipe}:{2 * int(end)}"):
        used_up = subjects.system_log(other, "u")
        await (await nats.publish_stored(used_up, b"x", {"Nats-Msg-Id": id}))
    await piped(chosen, b'{"message": "two"}\n')
    assert await said(nats, host) == ["one", "two"]
