# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What in an Arvados cluster's config.yml keeps events from flowing: `arvados-nats check config`.

Pure but for reading the file. Each rule is one that sites have broken (docs/facts/arvados-demand.md
1a, rows 21, 22 and 25): the address of WebSockets, audit logs that are switched off, tokens that
are missing. A finding has the line, the setting and what is wrong, and never a value that is
secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from yaml.nodes import MappingNode, Node

from arvados_nats import urls
from arvados_nats.arvados import config as arvados_config
from arvados_nats.arvados.config import ClusterConfig, duration

_PATH = "/websocket"
_SHORTEST_AGE = timedelta(minutes=5)
_POOLER_PORT = "6432"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one setting. `line` counts from 1."""

    line: int
    setting: str
    wrong: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.setting}: {self.wrong}"


def check(path: Path, name: str = "") -> dict[str, list[Finding]]:
    """Cluster -> what is wrong with it, of all or of the one that is named.

    `BadInput` gives line and reason where a file is broken, and says which clusters there are.
    """
    clusters = arvados_config.read(path)
    if name:
        clusters = {name: arvados_config.choose(clusters, name).node}
    return examine(clusters)


def examine(clusters: Mapping[str, Node]) -> dict[str, list[Finding]]:
    """The same for a file that was read."""
    return {name: list(_faults(name, node)) for name, node in clusters.items()}


def _faults(name: str, node: Node) -> Iterator[Finding]:
    line = node.start_mark.line + 1
    if not re.fullmatch("[a-z0-9]{5}", name):
        yield Finding(line, name, "a cluster's name has five lower-case letters or digits")
    if not isinstance(node, MappingNode):
        yield Finding(line, name, "this is no map of settings")
        return
    for rule in _RULES:
        yield from rule(ClusterConfig(name, node))


def _finding(cluster: ClusterConfig, path: str, wrong: str) -> Finding:
    """Something wrong there, at the line of the nearest setting that is written."""
    return Finding(cluster.line(path), f"{cluster.name}.{path}", wrong)


def _websocket(cluster: ClusterConfig) -> Iterator[Finding]:
    setting = "Services.Websocket.ExternalURL"
    controller = cluster.text("Services.Controller.ExternalURL")
    for wrong in websocket_faults(cluster.text(setting), controller):
        yield _finding(cluster, setting, wrong)


def websocket_faults(url: str, controller_url: str) -> Iterator[str]:
    """What is wrong with the address of WebSockets, where the API has this other one."""
    if not url:
        yield "it is not set: no client looks for events"
        return
    parts = urls.split(url)
    if parts.scheme not in ("ws", "wss"):
        yield f"it begins with {parts.scheme}://, and must with wss://"
    elif parts.scheme == "ws" and urls.split(controller_url).scheme == "https":
        yield "it begins with ws://: pages that came by https:// may not open it"
    if not parts.hostname:
        yield "it names no host"
    if parts.path in ("", "/"):
        yield f"it has no path, and must end in {_PATH}"
    elif parts.path != _PATH:
        yield f"its path is {parts.path}, and must be {_PATH}"


def _controller(cluster: ClusterConfig) -> Iterator[Finding]:
    setting = "Services.Controller.ExternalURL"
    if not cluster.text(setting):
        yield _finding(cluster, setting, "it is not set: there is no API to ask who may read")


def _audit_logs(cluster: ClusterConfig) -> Iterator[Finding]:
    written, batch = cluster.text("AuditLogs.MaxAge"), cluster.text("AuditLogs.MaxDeleteBatch")
    age = duration(written) if written else None
    if written and age is None:
        yield _finding(cluster, "AuditLogs.MaxAge", "it is no duration such as 336h")
    if age is None or batch in ("", "0"):
        return
    if not age:
        yield _finding(
            cluster,
            "AuditLogs.MaxAge",
            "0 with a MaxDeleteBatch switches audit logs off: no event at all",
        )
    elif age < _SHORTEST_AGE:
        yield _finding(
            cluster, "AuditLogs.MaxAge", "rows are deleted within 5 minutes, before all are read"
        )


def _database(cluster: ClusterConfig) -> Iterator[Finding]:
    setting = "PostgreSQL.Connection.port"
    if cluster.text(setting) == _POOLER_PORT:
        yield _finding(
            cluster,
            setting,
            f"{_POOLER_PORT} is the port of a pooler: publishers need PostgreSQL itself",
        )


def _tokens(cluster: ClusterConfig) -> Iterator[Finding]:
    if not cluster.text("SystemRootToken"):
        yield _finding(cluster, "SystemRootToken", "it is not set: container logs need a token")
    if not cluster.text("ManagementToken"):
        yield _finding(cluster, "ManagementToken", "it is not set: health and metrics answer 404")


_RULES: tuple[Callable[[ClusterConfig], Iterator[Finding]], ...] = (
    _websocket,
    _controller,
    _audit_logs,
    _database,
    _tokens,
)
