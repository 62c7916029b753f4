# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats status`: is anyone missing events?"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

import click

from arvados_nats.service import process

_BEHIND_SECONDS = 30.0
_NEWEST = """
    SELECT max(created_at) FROM logs
    WHERE created_at > now() AT TIME ZONE 'UTC' - interval '1 hour' AND uuid IS NOT NULL
"""


@click.command()
def status() -> None:
    """Show the newest row that Arvados has beside what is stored of it; exit 1 if rows are missing.

    Settings come from the environment, as for `check connections`: NATS, its seed `wsproxy`, and
    PostgreSQL.
    """
    from arvados_nats.admin.settings import Settings

    settings = process.load(Settings)
    dsn = settings.postgres_dsn.get_secret_value()
    row, stored = asyncio.run(_look(settings.nats_servers, settings.seed("wsproxy"), dsn))
    behind = max(0.0, (row - stored).total_seconds()) if row and stored else 0.0
    missing = behind > _BEHIND_SECONDS or (row is not None and stored is None)
    click.echo(f"newest row in Arvados:  {_shown(row)}")
    click.echo(f"newest event in NATS:   {_shown(stored)}")
    click.echo(f"behind: {behind:.1f} s" + (": rows are missing" if missing else ""))
    sys.exit(1 if missing else 0)


def _shown(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds") if moment else "none of the last hour"


async def _look(servers: list[str], seed: str, dsn: str) -> tuple[datetime | None, datetime | None]:
    from arvados_nats.contract import events, streams, subjects
    from arvados_nats.nats import client as nats_client
    from arvados_nats.postgres import dsn as postgres_dsn
    from arvados_nats.postgres import primary
    from arvados_nats.postgres.errors import translate

    with translate():
        connection = await primary.Hosts(postgres_dsn.to_url(dsn)).connect()
        try:
            newest = await connection.fetchval(_NEWEST)
        finally:
            await primary.close(connection)
    async with nats_client.connect(servers, name="status", seed=seed, timeout=10) as nats:
        last = await nats.last(streams.EVENTS, f"{subjects.EVENTS}.>")
    stored = datetime.fromisoformat(events.decode(last.data).created_at) if last else None
    return newest and newest.replace(tzinfo=UTC), stored and stored.replace(tzinfo=UTC)
