# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command group `arvados-nats check`: say in plain words whether something is as it should be.

Every check prints its answer on stdout and exits 0 when all is well, 1 when not, 2 when it could
not look.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from arvados_nats.postgres import arvados_tables
from arvados_nats.service import process

if TYPE_CHECKING:
    from arvados_nats.admin.check_connections import Findings
    from arvados_nats.admin.settings import Settings


@click.group()
def check() -> None:
    """Check a recording, the configuration, or one side of a running installation.

    `arvados-nats doctor` looks at all of a machine, with each service's own settings and secrets.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # what fails is told once, in the answer


@check.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def permissions(file: Path) -> None:
    """Replay recorded answers of a real Arvados against the permission rule.

    FILE has the format of tests/golden/permissions.json. Prints one JSON object; exits 1 if our
    rule is looser or stricter than Arvados in any cell.
    """
    from arvados_nats.admin.check_permissions import check as replay
    from arvados_nats.errors import BadInput

    try:
        report = replay(file)
    except BadInput as error:
        click.echo(f"{file}: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps(report.as_dict()))
    sys.exit(0 if report.passed else 1)


@check.command()
@click.option("--proxy", "url", help="Also look at a wsproxy, ws[s]://host[:port].")
def connections(url: str | None) -> None:
    """See whether the parts are there, tell the right time, and refuse whom they should.

    Settings come from the environment, as for the services: NATS at ARVADOS_NATS_NATS_URL with the
    seed `wsproxy` from ARVADOS_NATS_KEYS_DIR; Arvados' API if ARVADOS_API_HOST is set, PostgreSQL
    if ARVADOS_NATS_POSTGRES_DSN is. --arvados-config gives both.
    """
    from arvados_nats.admin.check_connections import Note
    from arvados_nats.admin.settings import Settings

    settings = process.load(Settings)
    found = asyncio.run(_connections(settings, url))
    for line in _not_looked_at(settings, url):
        click.echo(line)
    for part, told in found.items():
        click.echo(f"{part}: {f'ok ({told})' if isinstance(told, Note) else told or 'ok'}")
    wrong = [told for told in found.values() if told and not isinstance(told, Note)]
    sys.exit(1 if wrong else 0)


@check.command("grants")
@click.option("--role", default=arvados_tables.ROLE, show_default=True)
def grants_command(role: str) -> None:
    """Print the SQL that gives a role of PostgreSQL what the publishers read.

    Run it in Arvados' database as the owner of its tables, and again after an upgrade of Arvados.
    Lines for a newer release than yours fail, which does no harm.
    """
    click.echo("\n".join(arvados_tables.grants(role)))


async def _connections(settings: Settings, proxy: str | None) -> Findings:
    from arvados_nats.admin import check_arvados, check_connections, check_postgres

    logs = bool(settings.log_token.get_secret_value())
    found = await check_connections.nats(
        settings.nats_servers, settings.seed("wsproxy"), logs=logs, ca_file=settings.nats_ca_file
    )
    if settings.arvados_api_host:
        found |= await check_arvados.check(
            settings.arvados_url,
            ca_file=settings.arvados_ca_file,
            insecure=settings.arvados_api_host_insecure,
        )
    if dsn := settings.postgres_dsn.get_secret_value():
        found |= await check_postgres.check(dsn)
    if proxy:
        found |= await check_connections.proxy(proxy, ca_file=settings.arvados_ca_file)
    return found


def _not_looked_at(settings: Settings, proxy: str | None) -> Iterator[str]:
    """What would make it look at the rest: silence is no verdict."""
    pod = "`arvados-nats doctor` does in a pod of the publishers"
    there = "KUBERNETES_SERVICE_HOST" in os.environ
    if not settings.arvados_api_host:
        yield f"Arvados: not looked at ({pod if there else 'set ARVADOS_API_HOST'})"
    if not settings.postgres_dsn.get_secret_value():
        yield f"PostgreSQL: not looked at ({pod if there else 'set ARVADOS_NATS_POSTGRES_DSN'})"
    if not proxy:
        yield "wsproxy: not looked at (give --proxy)"


@check.command("streams")
@click.option(
    "--store-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Also look at the disk: the folder of a NATS server on this machine.",
)
def streams_command(store_dir: Path | None) -> None:
    """See whether the streams are there, whole, and fit what they are given.

    Also shows messages that the live publisher had to pass over, which is no fault of the site.

    Settings come from the environment, as for `check connections`.
    """
    from arvados_nats.admin import check_streams
    from arvados_nats.service.settings import NatsSettings

    settings = process.load(NatsSettings)
    seed, ca = settings.seed("wsproxy"), settings.nats_ca_file
    found = asyncio.run(check_streams.check(settings.nats_servers, seed, store_dir, ca_file=ca))
    for part, wrong in found.items():
        click.echo(f"{part}: {'; '.join(wrong) or 'ok'}")
    for line in asyncio.run(check_streams.passed_over(settings.nats_servers, seed, ca_file=ca)):
        click.echo(line)
    sys.exit(1 if any(found.values()) else 0)


@check.command()
@click.argument(
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("/etc/arvados/config.yml"),
    envvar="ARVADOS_NATS_ARVADOS_CONFIG",
)
@click.option(
    "--cluster-id",
    "name",
    default="",
    envvar="ARVADOS_NATS_ARVADOS_CLUSTER",
    help="Only this one of its clusters.",
)
def config(file: Path, name: str) -> None:
    """See whether a site's Arvados configuration lets events flow.

    FILE is the site's own config.yml, as one writes it, without Arvados' defaults.
    """
    from arvados_nats.admin.check_config import check as look
    from arvados_nats.errors import BadInput

    try:
        clusters = look(file, name)
    except BadInput as error:
        click.echo(f"{file}: {error}", err=True)
        sys.exit(2)
    for cluster, findings in clusters.items():
        click.echo("\n".join(f"{file}: {found}" for found in findings) or f"{cluster}: ok")
    sys.exit(1 if any(clusters.values()) else 0)
