# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats demo`: the whole facility on one machine, with containers that run for ever.

With `--check` one container runs from commit to Complete instead and is watched through protocols
v0, v1 and server-sent events; every byte and every event is verified (`demo_check`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import shutil
import sys
from pathlib import Path

import click
import uvloop

from arvados_nats.errors import ArvadosNatsError
from arvados_nats.service.process import log_to_stderr
from sandbox import ages, demo_check, running, sandbox, stack
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.running import Pace
from sandbox.servers.backends import Backend
from sandbox.stack import Stack

logger = logging.getLogger(__name__)

_AT_ONCE = 3
_NAMES = ("align-reads", "call-variants", "merge-bam", "qc-report", "index-reference")


@click.command()
@click.option("--check", is_flag=True, help="Watch one container to its end, verify all, and exit.")
@click.option(
    "--backend",
    type=click.Choice([backend.value for backend in Backend]),
    default=Backend.AUTO.value,
    show_default=True,
    help="Where NATS and PostgreSQL run.",
)
@click.option(
    "--arvados",
    "release",
    type=click.Choice(ages.AGES),
    default=ages.NEWEST,
    show_default=True,
    help="The release of Arvados that is played.",
)
def demo(check: bool, backend: str, release: str) -> None:
    """Run everything on this machine and show a workflow live."""
    log_to_stderr("WARNING")
    try:
        uvloop.run(_demo(check, Backend(backend), release))
    except ArvadosNatsError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


async def _demo(check: bool, backend: Backend, release: str) -> None:
    click.echo("starting PostgreSQL, NATS, a pretend Arvados and our services …", err=True)
    config = ClusterConfig(release=release)
    async with (
        sandbox.run(backend=backend, config=config) as cluster,
        stack.beside(cluster) as services,
    ):
        if check:
            await _check(services)
        else:
            await _show(services)


async def _check(services: Stack) -> None:
    report = await demo_check.check(services)
    click.echo(json.dumps(report))
    if not report["ok"]:
        sys.exit(1)


async def _show(services: Stack) -> None:
    cluster = services.sandbox.cluster
    user, admin = await cluster.user("demo"), await cluster.user("admin", admin=True)
    project = await cluster.project("Demo", owner=user)
    numbers = itertools.count(1)
    started: asyncio.Queue[str] = asyncio.Queue()

    async def work() -> None:
        while True:
            name = f"{random.choice(_NAMES)}-{next(numbers)}"
            request = await cluster.container_request(name, owner=project, by=user)
            started.put_nowait(request.uuid)
            pace = Pace(lines=400, per_second=random.uniform(2, 10), statistics=2.0)
            await running.run(cluster, request, pace)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_AT_ONCE):
            tasks.create_task(work())
        click.echo(instructions(services, user, admin, await started.get()))
        while True:
            await asyncio.sleep(1)
            stack.require(services)


def instructions(services: Stack, user: Actor, admin: Actor, request_uuid: str) -> str:
    """What one can do with it: commands that run as they stand."""
    url, token = services.page_url, user.token
    events = f"{url}/arvados/v1/container_requests/{request_uuid}/log_events"
    here = Path(sys.argv[0])
    program = here.name if shutil.which(here.name) else here.absolute()
    where = " ".join(
        f"{name}={value}" for name, value in services.sandbox.client_environment(token).items()
    )
    return f"""
  Page     {url}/#request={request_uuid}&token={token}
  Token    {token}
  User     {user.uuid}
  Admin    {admin.token} (for the queue and whatever administrators see)
  curl     curl -N -H 'Authorization: Bearer {token}' {events}
  Logs     {where} {program} logs -f {request_uuid}
  SDK      the same three settings, for every Arvados tool
  NATS     {services.sandbox.nats.url} (the token is the NATS token)

  Ctrl-C stops everything and removes its data.
"""
