# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What in an Arvados cluster's config.yml keeps events from flowing: `arvados-nats check config`.

Pure but for reading the file. Each rule is one that sites have broken (facts/arvados-demand.md 1a,
rows 21, 22 and 25): the address of WebSockets, audit logs that are switched off, tokens that are
missing. A finding has the line, the setting and what is wrong, and never a value that is secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from arvados_nats.errors import BadInput

_PATH = "/websocket"
_SHORTEST_AGE = timedelta(minutes=5)
_POOLER_PORT = "6432"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|us|µs|ns|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one setting. `line` counts from 1."""

    line: int
    setting: str
    wrong: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.setting}: {self.wrong}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The settings of one cluster, found by their path; absent ones are the empty text."""

    name: str
    node: MappingNode

    def find(self, path: str) -> Node | None:
        """The node at `A.B.C`, or None."""
        found: Node | None = self.node
        for name in path.split("."):
            found = _entries(found).get(name) if isinstance(found, MappingNode) else None
        return found

    def text(self, path: str) -> str:
        """The value at a path as it is written; empty where there is none."""
        found = self.find(path)
        if not isinstance(found, ScalarNode) or found.tag == "tag:yaml.org,2002:null":
            return ""
        return str(found.value)

    def finding(self, path: str, wrong: str) -> Finding:
        """Something wrong there, at the line of the nearest setting that is written."""
        found, near = None, path
        while found is None and near:
            found, near = self.find(near), near.rpartition(".")[0]
        line = (found or self.node).start_mark.line + 1
        return Finding(line, f"{self.name}.{path}", wrong)


def check(path: Path) -> dict[str, list[Finding]]:
    """Cluster -> what is wrong with it. `BadInput` gives line and reason where a file is broken."""
    try:
        return examine(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BadInput(f"byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise BadInput(f"it can not be read: {error.strerror}") from error


def examine(text: str) -> dict[str, list[Finding]]:
    """The same for the text of a file."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadInput(f"line {mark.line + 1 if mark else '?'}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise BadInput("it holds a character that YAML does not allow") from error
    clusters = _entries(root).get("Clusters") if isinstance(root, MappingNode) else None
    if not isinstance(clusters, MappingNode):
        near = clusters or root
        line = near.start_mark.line + 1 if near else 1
        raise BadInput(f"line {line}: there is no map `Clusters`")
    return {name: list(_faults(name, node)) for name, node in _entries(clusters).items()}


def _faults(name: str, node: Node) -> Iterator[Finding]:
    line = node.start_mark.line + 1
    if not re.fullmatch("[a-z0-9]{5}", name):
        yield Finding(line, name, "a cluster's name has five lower-case letters or digits")
    if not isinstance(node, MappingNode):
        yield Finding(line, name, "this is no map of settings")
        return
    for rule in _RULES:
        yield from rule(Cluster(name, node))


def _entries(node: MappingNode) -> dict[str, Node]:
    """Name -> node; `BadInput` for a name that is written twice: one of them would be lost."""
    found: dict[str, Node] = {}
    for key, value in node.value:
        if key.value in found:
            raise BadInput(f"line {key.start_mark.line + 1}: {key.value} is written twice")
        found[str(key.value)] = value
    return found


def _websocket(cluster: Cluster) -> Iterator[Finding]:
    setting = "Services.Websocket.ExternalURL"
    url = cluster.text(setting)
    if not url:
        yield cluster.finding(setting, "it is not set: no client looks for events")
        return
    parts = urlsplit(url)
    secure = urlsplit(cluster.text("Services.Controller.ExternalURL")).scheme == "https"
    if parts.scheme not in ("ws", "wss"):
        yield cluster.finding(setting, f"it begins with {parts.scheme}://, and must with wss://")
    elif parts.scheme == "ws" and secure:
        yield cluster.finding(
            setting, "it begins with ws://: pages that came by https:// may not open it"
        )
    if not parts.hostname:
        yield cluster.finding(setting, "it names no host")
    if parts.path in ("", "/"):
        yield cluster.finding(setting, f"it has no path, and must end in {_PATH}")
    elif parts.path != _PATH:
        yield cluster.finding(setting, f"its path is {parts.path}, and must be {_PATH}")


def _controller(cluster: Cluster) -> Iterator[Finding]:
    setting = "Services.Controller.ExternalURL"
    if not cluster.text(setting):
        yield cluster.finding(setting, "it is not set: there is no API to ask who may read")


def _audit_logs(cluster: Cluster) -> Iterator[Finding]:
    written, batch = cluster.text("AuditLogs.MaxAge"), cluster.text("AuditLogs.MaxDeleteBatch")
    age = duration(written) if written else None
    if written and age is None:
        yield cluster.finding("AuditLogs.MaxAge", "it is no duration such as 336h")
    if age is None or batch in ("", "0"):
        return
    if not age:
        yield cluster.finding(
            "AuditLogs.MaxAge", "0 with a MaxDeleteBatch switches audit logs off: no event at all"
        )
    elif age < _SHORTEST_AGE:
        yield cluster.finding(
            "AuditLogs.MaxAge", "rows are deleted within 5 minutes, before all are read"
        )


def _database(cluster: Cluster) -> Iterator[Finding]:
    setting = "PostgreSQL.Connection.port"
    if cluster.text(setting) == _POOLER_PORT:
        yield cluster.finding(
            setting,
            f"{_POOLER_PORT} is the port of a pooler: publishers need PostgreSQL itself",
        )


def _tokens(cluster: Cluster) -> Iterator[Finding]:
    if not cluster.text("SystemRootToken"):
        yield cluster.finding("SystemRootToken", "it is not set: container logs need a token")
    if not cluster.text("ManagementToken"):
        yield cluster.finding("ManagementToken", "it is not set: health and metrics answer 404")


_RULES: tuple[Callable[[Cluster], Iterator[Finding]], ...] = (
    _websocket,
    _controller,
    _audit_logs,
    _database,
    _tokens,
)


def duration(text: str) -> timedelta | None:
    """What Go's duration text means, such as `336h` or `1h30m`; None if it is none."""
    if text == "0":
        return timedelta()
    if not _DURATION.fullmatch(text):
        return None
    return timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(text)))
