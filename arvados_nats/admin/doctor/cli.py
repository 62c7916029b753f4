# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats doctor`: looks at everything, and ends with what is wrong.

Read only, but for one empty message among the cursors, which shows whether NATS still stores.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Iterable
from pathlib import Path

import click

from arvados_nats.admin import check_connections, unit_files
from arvados_nats.admin.doctor import arvados_side, broker, files, finding, running, services
from arvados_nats.admin.doctor.finding import Finding, Verdict
from arvados_nats.admin.doctor.services import KINDS, Service

_Folder = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--quiet", is_flag=True, help="Only what is wrong.")
@click.option("--proxy", "url", metavar="URL", help="Public address of wsproxy, ws[s]://host.")
@click.option(
    "--arvados-config",
    "config",
    type=click.Path(path_type=Path),
    default=Path("/etc/arvados/config.yml"),
    envvar="ARVADOS_NATS_ARVADOS_CONFIG",
    show_default=True,
    help="Arvados' own file, if it is on this machine.",
)
@click.option("--cluster-id", "cluster", default="", envvar="ARVADOS_NATS_ARVADOS_CLUSTER")
@click.option("--units", type=_Folder, multiple=True, default=unit_files.FOLDERS, hidden=True)
@click.option("--credentials", type=_Folder, default=unit_files.CREDENTIALS, hidden=True)
def doctor(
    as_json: bool,
    quiet: bool,
    url: str | None,
    config: Path,
    cluster: str,
    units: tuple[Path, ...],
    credentials: Path,
) -> None:
    """Look at everything, and say what is wrong, since when, and what mends it.

    On a machine, as root: reads the units, their settings and secrets, and tries each of them; in
    a pod what that pod has. Exits 0 if nothing is wrong, 2 if something in the files of this
    machine is, 1 if something else is.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    if url:
        check_connections.place(url)
    with tempfile.TemporaryDirectory(prefix="arvados-nats-doctor-") as place:
        found, findings = services.find(
            units, lambda: Path(tempfile.mkdtemp(dir=place)), from_outside=bool(url)
        )
        findings = [*files.hidden(units), *findings]
        findings += files.look(found, units, credentials)
        findings += arvados_side.config(found, config, cluster)
        findings += asyncio.run(_tried(found, units, url))
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        findings = [finding.in_a_pod(each) for each in findings]
    findings = list(dict.fromkeys(findings))
    if as_json:
        wrong = [each.as_dict() for each in findings if each.verdict is Verdict.WRONG]
        click.echo(json.dumps({"wrong": wrong, "looked_at": [f.as_dict() for f in findings]}))
    else:
        click.echo(finding.text(findings, everything=not quiet))
    sys.exit(finding.exit_code(findings))


async def _tried(found: list[Service], units: Iterable[Path], url: str | None) -> list[Finding]:
    """What comes of using all that the services were given; what others suffer from first."""
    by_name = {service.name: service for service in found}
    server = services.unit(files.SERVER, units)
    findings: list[Finding] = []
    for name in (*KINDS, files.SERVER):
        if unit := services.unit(name, units):
            findings += running.of_systemd(unit)
    looks: list[Awaitable[list[Finding]]] = [broker.server(server)] if server else []
    looks += [broker.logins(service) for service in found]
    if publishers := by_name.get("publishers"):
        looks += [arvados_side.database(publishers), arvados_side.log_token(publishers)]
        looks.append(_listed(arvados_side.row_way(publishers)))
    if callout := by_name.get("authcallout"):
        looks += [arvados_side.api(callout), _listed(broker.login_way(callout))]
    if wsproxy := by_name.get("wsproxy"):
        logs = publishers is None or bool(publishers.settings.log_token.get_secret_value())
        store = broker.store(server) if server else None
        looks += [arvados_side.sockets(wsproxy), broker.streams(wsproxy, store, logs=logs)]
    if url:
        looks.append(
            arvados_side.public(url, wsproxy.settings.arvados_ca_file if wsproxy else None)
        )
    looks += [running.health(service) for service in found]
    if not url:
        findings.append(finding.skipped("wsproxy from outside", "give --proxy wss://HOST"))
    for told in await asyncio.gather(*looks):
        findings += told
    return findings


async def _listed(look: Awaitable[Finding]) -> list[Finding]:
    return [await look]
