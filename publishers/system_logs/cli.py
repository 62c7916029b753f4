# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats publishers system-logs`: on each machine whose system log is to be seen.

It needs a key of this machine's own, which may append to its own subjects in ARVADOS_SYSLOG and do
nothing else; `arvados-nats keys machine` makes it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

import click
from pydantic import Field

from arvados_nats.contract import subjects
from arvados_nats.errors import ConfigError
from arvados_nats.nats import client as nats_client
from arvados_nats.service import keys, machine_keys, ops, process
from arvados_nats.service.ops import Health
from arvados_nats.service.settings import NatsSettings, OpsSettings
from publishers.pipes.pipe import Pipe
from publishers.pipes.spool import Spool
from publishers.retry import Attempts
from publishers.system_logs import metrics
from publishers.system_logs.journal import Journal
from publishers.system_logs.pipe import PipeLines
from publishers.system_logs.place import PlaceFile
from publishers.system_logs.publisher import Sender, Source

logger = logging.getLogger(__name__)

IDENTITY = "system-logs"


class SystemLogSettings(NatsSettings, OpsSettings):
    """How a machine sends its system log. Reads `system-logs.nk`, the key of the machine."""

    system_log_host: str = Field(default_factory=socket.gethostname, min_length=1)
    """What the machine is called in `arvados.syslog.<host>.…`; by default its host name."""

    system_log_state: Path = Path("/var/lib/arvados-nats/system-logs")
    """Folder for the place of the last record stored, and for what waits of a pipe."""

    system_log_namespace: str = ""
    """Namespace of journald to read instead of the machine's own journal."""

    system_log_spool_bytes: int = Field(256 << 20, gt=0)
    """Bytes of a pipe (`--stdin`) that may wait on disk while NATS is away; what comes when it is
    full is left out and counted. The journal needs no spool: it is one."""


@click.command("system-logs")
@click.option("--stdin", "piped", is_flag=True, help="Lines of JSON from a pipe, not the journal.")
def system_logs_command(piped: bool) -> None:
    """Send this machine's system log to NATS, each record once.

    Reads the journal from where the last run ended, or from this boot on. ARVADOS_NATS_NATS_URL
    names the servers, ARVADOS_NATS_KEYS_DIR the folder with the key of this machine, `arvados-nats
    keys machine`, as system-logs.nk.
    """
    sys.exit(process.run(lambda settings: send(settings, piped=piped), SystemLogSettings))


async def send(settings: SystemLogSettings, *, piped: bool = False, source: int = 0) -> None:
    """Send the journal until cancelled, or the file descriptor `source` to its end."""
    health = Health()
    host = subjects.file_token(settings.system_log_host)
    connect = partial(
        nats_client.connect,
        settings.nats_servers,
        name=f"arvados-nats system-logs {settings.system_log_host}",
        token=_key(settings, host),
        inbox_prefix=subjects.inbox_prefix(f"{IDENTITY}-{host}"),
        ca_file=settings.nats_ca_file,
    )
    places = PlaceFile(settings.system_log_state)
    async with AsyncExitStack() as exits, asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(
            ops.serve(settings.ops_listen, health, settings.management_secret)
        )
        lines: Source = Journal(health, settings.system_log_namespace)
        if piped:  # its writer must not wait for NATS
            pipe = Pipe(
                exits.enter_context(_spool(settings)), metrics.SKIPPED.labels("no_room").inc
            )
            tasks.create_task(pipe.fill(source))
            lines = PipeLines(pipe, places.place.source)
        attempts = Attempts(health, "system logs")
        # Also where nobody is there yet who knows our key: what a pipe says is kept meanwhile.
        nats = await attempts.until_done(lambda: exits.enter_async_context(connect()))
        await Sender(nats, settings.system_log_host, places, attempts).run(lines)
        serving.cancel()


def _key(settings: SystemLogSettings, host: str) -> Callable[[], str]:
    """The machine's own, which a machine that has the seed of all makes for itself."""
    secret = settings.living_seed(IDENTITY)
    named = machine_keys.named(secret())
    if named is None:
        logger.warning(
            "this machine has the seed that the keys of all machines are made from: unless it is"
            " the one that makes them, give it a key of its own, `arvados-nats keys machine`",
            extra={"action": "system_logs.shared_seed"},
        )
    elif named != host:
        raise ConfigError(
            f"the key in {settings.keys_dir} is that of {named}, and not of"
            f" {settings.system_log_host}: make one with `arvados-nats keys machine`"
        )

    def key() -> str:
        text = secret()
        is_key = machine_keys.named(text) is not None
        return text if is_key else machine_keys.make(keys.parse_seed(text), host)

    return key


@contextmanager
def _spool(settings: SystemLogSettings) -> Iterator[Spool]:
    spool = Spool(settings.system_log_state / "pipe", max_bytes=settings.system_log_spool_bytes)
    try:
        yield spool
    finally:
        spool.close()
