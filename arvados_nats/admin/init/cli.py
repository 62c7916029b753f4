# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats init`: shows what it would write, asks, and writes it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from arvados_nats.admin import unit_files
from arvados_nats.admin.init import answers as asked
from arvados_nats.admin.init import kubernetes as chart
from arvados_nats.admin.init import machine, written
from arvados_nats.admin.init.machine import Places, Site
from arvados_nats.admin.init.written import Change, File, State
from arvados_nats.errors import ConfigError
from arvados_nats.service import keys

_Folder = click.Path(file_okay=False, path_type=Path)
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


@click.command()
@click.argument("folder", type=_Folder, required=False)
@click.option("--kubernetes", is_flag=True, help="Values for the chart and Secrets instead.")
@click.option("--namespace", default=chart.NAMESPACE, show_default=True, help="Of the chart.")
@click.option("--host", metavar="NAME", help="Public name of wsproxy: also writes nginx.conf.")
@click.option(
    "--certificate", nargs=2, metavar="CERT KEY", help="Of that name, where nginx finds them."
)
@click.option(
    "--units",
    type=_Folder,
    default=unit_files.FOLDERS[0],
    show_default=True,
    help="Where units go, unless a package brought them.",
)
@click.option(
    "--store-dir",
    type=_Folder,
    default=machine.STORE,
    show_default=True,
    help="NATS keeps it there.",
)
@click.option("--overwrite", is_flag=True, help="Also what a person changed; it stays as *.old.")
@click.option("--diff", "whole", is_flag=True, help="Show the text of new files, too.")
@click.option("--yes", is_flag=True, help="Write without asking.")
def init(
    folder: Path | None,
    kubernetes: bool,
    namespace: str,
    host: str | None,
    certificate: tuple[str, str] | None,
    units: Path,
    store_dir: Path,
    overwrite: bool,
    whole: bool,
    yes: bool,
) -> None:
    """Write all that this machine needs into FOLDER: keys, secrets, settings, units.

    FOLDER is /etc/arvados-nats, or ./arvados-nats with --kubernetes.

    What a site is comes from Arvados' own file (/etc/arvados/config.yml, or `arvados-nats
    --arvados-config FILE init`), from the environment by the names of docs/settings.md, or is asked
    for. It can be run again: what changed is shown before it is written, and what a person changed
    is kept.
    """
    if host and not _NAME.fullmatch(host):
        raise ConfigError(f"--host: {host!r} is no name of a host, such as ws.xurid.example.com")
    ways = {"overwrite": overwrite, "whole": whole, "yes": yes}
    if kubernetes:
        if certificate:
            raise ConfigError("--certificate is for nginx; in Kubernetes your gateway has it")
        _for_kubernetes(folder or chart.FOLDER, namespace, host, **ways)
        return
    folder = (folder or machine.FOLDER).absolute()
    places = Places(folder, _own_units(units), Path(sys.prefix) / "bin", store_dir.absolute())
    site = _site(host, certificate)
    answers = asked.read(places.dsn)
    files = machine.files(answers, keys.missing(places.keys), places, site)
    renewed = _write(folder, files, **ways)
    click.echo("\n".join(_next(answers.database, places, site, renewed=renewed)))


def _for_kubernetes(folder: Path, namespace: str, host: str | None, **ways: bool) -> None:
    answers = asked.read(folder / chart.SECRETS, chart.dsn)
    files = chart.files(answers, folder, asked.cluster(), namespace, host)
    _write(folder, files, **ways)
    click.echo("\n".join(chart.following(answers, folder, namespace)))


def _write(folder: Path, files: Iterator[File], *, overwrite: bool, whole: bool, yes: bool) -> bool:
    """Whether anything was there before and is another now."""
    wanted = written.changes(folder, files, overwrite=overwrite)
    _show(wanted, whole=whole)
    if not yes and not _confirmed(wanted):
        sys.exit(1)
    written.write(folder, wanted)
    return any(change.state is State.CHANGED for change in wanted)


def _own_units(folder: Path) -> Path | None:
    packaged = unit_files.FOLDERS[1] / machine.UNITS[0]
    return None if folder == unit_files.FOLDERS[0] and packaged.exists() else folder


def _site(host: str | None, certificate: tuple[str, str] | None) -> Site | None:
    if certificate and not host:
        raise ConfigError("--certificate needs --host, the public name of wsproxy")
    if host is None:
        return None
    found = certificate or (f"/etc/ssl/certs/{host}.pem", f"/etc/ssl/private/{host}.key")
    return Site(host, *found)


def _show(wanted: list[Change], *, whole: bool) -> None:
    for change in wanted:
        told = (
            change.file.path.suffix not in (".nk", ".pub") if whole else change.before is not None
        )
        if told and change.state is not State.SAME:
            click.echo("\n".join(change.diff()))
    for change in wanted:
        click.echo(f"{change.state.value:>8}  {change.file.path}")


def _confirmed(wanted: list[Change]) -> bool:
    if not any(change.state in (State.NEW, State.CHANGED) for change in wanted):
        return True
    if not sys.stdin.isatty():
        click.echo("nothing was written: say --yes to write it", err=True)
        return False
    return click.confirm("Write this?")


def _next(database: str, places: Places, site: Site | None, *, renewed: bool) -> Iterator[str]:
    services = " ".join(name.removesuffix(".service") for name in machine.UNITS)
    yield "Next, as root:"
    yield f"  runuser -u postgres -- psql -d {shlex.quote(database)} < {places.folder}/role.sql"
    yield f"  systemctl daemon-reload && systemctl enable --now {services}"
    if renewed:
        yield f"  systemctl restart {services}  # those that ran before read what is new"
    if site:
        link = f"ln -sf {places.folder}/nginx.conf /etc/nginx/conf.d/arvados-nats.conf"
        yield f"  {link} && nginx -t && systemctl reload nginx"
    yield "  arvados-nats doctor"
