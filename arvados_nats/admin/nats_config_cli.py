# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command group `arvados-nats config`: print configuration for what runs beside us."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from arvados_nats.admin.keys_cli import DEFAULT_FOLDER
from arvados_nats.errors import ConfigError
from arvados_nats.nats import accounts_config, conf_text, leaf_config, server_config
from arvados_nats.nats.addresses import is_loopback
from arvados_nats.service import keys

_UNITS = {"": 1, "KB": conf_text.KIB, "MB": conf_text.MIB, "GB": conf_text.GIB}


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+)(|KB|MB|GB)", str(value))
        if found is None:
            self.fail(f"{value} is no size; write it like 500MB or 20GB", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


def _keys(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--keys",
        "folder",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=DEFAULT_FOLDER,
        show_default=True,
        help=what,
    )


@click.group()
def config() -> None:
    """Print configuration for the servers that run beside our services."""


@config.command("nats-server")
@_keys("Folder that `arvados-nats keys` filled; of seeds `routes` alone is read, for a cluster.")
@click.option("--name", default="nats-1", show_default=True, help="Name of this server.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where clients connect.  [0.0.0.0:4222 with --tls, 127.0.0.1:4222 without]",
)
@click.option(
    "--monitor",
    default=server_config.MONITOR,
    show_default=True,
    metavar="HOST:PORT",
    help="Its monitoring page, or `none`. Servers of one machine need a port each.",
)
@click.option("--store-dir", default="/var/lib/nats", show_default=True)
@click.option(
    "--store", type=_Size(), default="20GB", show_default=True, help="Disk that one server uses."
)
@click.option("--tls", nargs=2, metavar="CERT KEY", help="Serve clients over TLS.")
@click.option("--cluster", help="Name of the cluster; makes this server one of several.")
@click.option("--cluster-listen", default="0.0.0.0:6222", show_default=True)
@click.option("--route", "routes", multiple=True, metavar="HOST:PORT", help="One other server.")
@click.option("--cluster-tls", nargs=3, metavar="CERT KEY CA", help="Members must show theirs.")
@click.option("--copies", type=int, help="Servers that keep each stream.  [3 in a cluster]")
@click.option("--websocket", metavar="HOST:PORT", help="Also serve native clients over WebSocket.")
@click.option("--origin", "origins", multiple=True, help="A web page that may use --websocket.")
@click.option("--leafs", metavar="HOST:PORT", help="Also take leaf nodes, of `config nats-leaf`.")
def nats_server(folder: Path, store: int, copies: int | None, monitor: str, **options: Any) -> None:
    """Print nats.conf for one NATS server with the accounts of this product.

    It holds no secret, but for a cluster the password of its routes. Print one for each server:

    arvados-nats config nats-server --name nats-1 --cluster arvados --route nats-2:6222 --route
    nats-3:6222
    """
    public = keys.load_all_public(folder)
    limits = accounts_config.AccountLimits(
        store=store, copies=copies or (3 if options["cluster"] else 1)
    )
    password = keys.load(folder, server_config.ROUTES).text if options["cluster"] else None
    server = _server(**options, password=password, monitor=None if monitor == "none" else monitor)
    for warning in _warnings(server):
        click.echo(warning, err=True)
    for address in filter(None, (server.monitor, server.listen)):
        if _is_taken(address):
            click.echo(
                f"{address} is taken on this machine now: a second server on it needs another"
                " --listen and --monitor",
                err=True,
            )
    click.echo(server_config.text(server, public, limits), nl=False)


@config.command("nats-leaf")
@click.argument("hubs", nargs=-1, required=True, metavar="URL...")
@_keys("Folder with wsproxy's key and seed; no other is needed there.")
@click.option("--name", default="leaf-1", show_default=True, help="Name of this server.")
@click.option("--listen", default="127.0.0.1:4222", show_default=True, metavar="HOST:PORT")
@click.option("--authority", help="PEM file, if a private one signed the servers' certificates.")
def nats_leaf(
    hubs: tuple[str, ...], folder: Path, name: str, listen: str, authority: str | None
) -> None:
    """Print nats.conf for a leaf node beside a wsproxy that is far from the NATS servers.

    URL says where those take leaf nodes (`config nats-server --leafs`), such as tls://nats-1:7422.
    The text holds wsproxy's seed: let the server alone read the file.
    """
    seed = keys.load(folder, "wsproxy").text
    known = {
        name: keys.load_public(folder, name)
        for name in ("wsproxy", f"wsproxy{keys.NEXT}")
        if (folder / f"{name}.pub").exists()
    }
    leaf = leaf_config.Leaf(name, hubs, seed, listen, authority)
    settings = leaf_config.settings(leaf, known, accounts_config.AccountLimits().payload)
    click.echo(conf_text.printed(settings), nl=False)


def _warnings(server: server_config.Server) -> Iterator[str]:
    if server.tls is None and not is_loopback(server.listen):
        yield (
            f"{server.listen} has no TLS: whoever reads that network reads tokens and events;"
            " give --tls, or close the network"
        )
    if server.cluster and server.cluster.tls is None:
        yield (
            "this text holds the password of the routes: let the server alone read the file."
            " Without --cluster-tls it crosses the network as it is"
        )


def _is_taken(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        except (ValueError, OverflowError):
            return False
    return False


def _server(
    *,
    tls: tuple[str, str] | None,
    websocket: str | None,
    origins: tuple[str, ...],
    cluster: str | None,
    cluster_listen: str,
    cluster_tls: tuple[str, str, str] | None,
    routes: tuple[str, ...],
    listen: str | None,
    password: str | None,
    **plain: Any,
) -> server_config.Server:
    if (routes or cluster_tls) and cluster is None:
        raise ConfigError("--route and --cluster-tls need --cluster, the name all servers share")
    if origins and websocket is None:
        raise ConfigError("--origin needs --websocket")
    served = server_config.Tls(*tls) if tls else None
    between = server_config.Tls(*cluster_tls) if cluster_tls else None
    return server_config.Server(
        **plain,
        listen=listen or ("0.0.0.0:4222" if served else "127.0.0.1:4222"),
        tls=served,
        cluster=server_config.Routes(cluster, cluster_listen, routes, between, password)
        if cluster
        else None,
        websocket=server_config.WebSocket(websocket, origins, served) if websocket else None,
        sync_always=cluster is None,
    )
