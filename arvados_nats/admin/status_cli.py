# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats status`: is anyone missing events?"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
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
    seed, ca = settings.seed("wsproxy"), settings.nats_ca_file
    found = asyncio.run(look(settings.nats_servers, seed, dsn, ca_file=ca))
    click.echo(f"newest row in Arvados:  {shown(found.row)}")
    click.echo(f"newest event in NATS:   {shown(found.stored)}")
    more = ": rows are missing" if found.missing else ""
    click.echo(f"behind: {found.behind:.1f} s{more}")
    sys.exit(1 if found.missing else 0)


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest row that Arvados has, and the newest that is stored; None: none of late."""

    row: datetime | None
    stored: datetime | None

    @property
    def behind(self) -> float:
        """Seconds."""
        if self.row is None or self.stored is None:
            return 0.0
        return max(0.0, (self.row - self.stored).total_seconds())

    @property
    def missing(self) -> bool:
        return self.behind > _BEHIND_SECONDS or (self.row is not None and self.stored is None)


def shown(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds") if moment else "none of the last hour"


async def look(servers: list[str], seed: str, dsn: str, *, ca_file: str | None = None) -> Standing:
    """Ask both."""
    from arvados_nats.contract import events, streams, subjects
    from arvados_nats.nats import client as nats_client
    from arvados_nats.postgres import primary
    from arvados_nats.postgres.errors import translate

    with translate():
        connection = await primary.Hosts(dsn).connect()
        try:
            newest = await connection.fetchval(_NEWEST)
        finally:
            await primary.close(connection)
    async with nats_client.connect(
        servers, name="status", seed=seed, timeout=10, ca_file=ca_file
    ) as nats:
        last = await nats.last(streams.EVENTS, f"{subjects.EVENTS}.>")
    stored = datetime.fromisoformat(events.decode(last.data).created_at) if last else None
    return Standing(newest and newest.replace(tzinfo=UTC), stored and stored.replace(tzinfo=UTC))
