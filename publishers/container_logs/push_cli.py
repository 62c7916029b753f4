# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats publishers push-log`: the end of a pipe on a compute node.

::

    tail -c +1 -F stdout.txt | arvados-nats publishers push-log -c "$UUID" -f stdout.txt --offset 0
"""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import AliasChoices, Field, SecretStr

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import log_chunks, subjects
from arvados_nats.errors import BadInput, ConfigError, Unavailable
from arvados_nats.service import process
from arvados_nats.service.settings import NatsSettings
from publishers.container_logs import push as push_log
from publishers.container_logs.push import Target
from publishers.pipes.pipe import Pipe
from publishers.pipes.spool import Spool

logger = logging.getLogger(__name__)


class PushSettings(NatsSettings):
    """How a compute node pushes logs."""

    arvados_api_token: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("ARVADOS_API_TOKEN")
    )
    """The container's own token, in the form `v2/<uuid>/<secret>/<container uuid>`. It may write
    the container's own log and nothing else."""

    push_spool: Path = Path("/var/tmp/arvados-nats")
    """Folder for bytes that NATS has not taken yet; a folder below it for each file."""

    push_spool_bytes: int = Field(1 << 30, gt=0)
    """Bytes of one file that may wait on disk. What comes when it is full is left to the log
    publisher, which reads it from the container's log."""

    push_linger_seconds: float = Field(60, ge=0)
    """How long NATS is waited for after the end of the input. Then the bytes stay on disk and the
    command fails; the log publisher reads them from the saved log."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What the command line asks for. `offset`: of the first byte of the input in the file."""

    container_uuid: str
    file: str
    offset: int | None


@click.command("push-log")
@click.option("-c", "--container", required=True, help="Uuid of the container.")
@click.option("-f", "--file", required=True, help="Name of the log file, such as stdout.txt.")
@click.option(
    "--offset",
    type=click.IntRange(min=0),
    help="Where in the file the input begins. Default: where the last run for it ended, or 0."
    " Bytes that NATS has already are not sent again.",
)
def push_log_command(container: str, file: str, offset: int | None) -> None:
    """Push a log file from standard input, as it is written, with the container's own token.

    Bytes wait on disk while NATS is away. ARVADOS_API_TOKEN holds the token, ARVADOS_NATS_NATS_URL
    the servers.
    """
    wanted = Destination(container, file, offset)
    sys.exit(process.run(lambda settings: push(settings, wanted), PushSettings))


async def push(settings: PushSettings, wanted: Destination) -> None:
    """Push standard input to its end; Unavailable if bytes are left on disk."""
    target = target_of(settings, wanted)
    folder = settings.push_spool / wanted.container_uuid / subjects.file_token(wanted.file)
    spool = Spool(folder, max_bytes=settings.push_spool_bytes)
    try:
        if wanted.offset is not None and wanted.offset != spool.end:
            spool.begin(wanted.offset)
        pipe = Pipe(spool)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(push_log.push(target, pipe))
            await pipe.fill(0)
            await _linger(sending, settings.push_linger_seconds)
        spool.finish()
    finally:
        spool.close()


async def _linger(sending: asyncio.Task[None], seconds: float) -> None:
    """Wait for the last bytes to arrive."""
    done, _ = await asyncio.wait([sending], timeout=seconds)
    if not done:
        raise Unavailable("NATS has not taken all of the log; the rest stays on disk")


def target_of(settings: PushSettings, wanted: Destination) -> Target:
    """Where to push to; ConfigError names what is wrong with the settings."""
    token = Token(settings.arvados_api_token.get_secret_value())
    kind = subjects.kind_of(wanted.container_uuid)
    if kind is None or kind.name != "container":
        raise ConfigError(f"--container: not the uuid of a container: {wanted.container_uuid!r}")
    try:
        log_chunks.require_usable(wanted.file)
    except BadInput as error:
        raise ConfigError(f"--file: {error}") from error
    if token.uuid is None:
        raise ConfigError("ARVADOS_API_TOKEN: give the container's token in its v2 form")
    return Target(
        settings.nats_servers, token, wanted.container_uuid, wanted.file, settings.nats_ca_file
    )
