# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A site's Arvados configuration, /etc/arvados/config.yml, as one writes it.

Pure but for reading the file. It is read as nodes, so that whatever is wrong has a line. Arvados'
defaults are not in it. No text made here shows a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from arvados_nats.errors import BadInput

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|us|µs|ns|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")

_MERGE, _MERGES = "tag:yaml.org,2002:merge", 3
_ARVADOS_WS = frozenset({"Client", "Postgres", "PingTimeout", "ClientEventQueue"})


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The settings of one cluster, found by their path; absent ones are the empty text."""

    name: str
    node: MappingNode

    def find(self, path: str) -> Node | None:
        """The node at `A.B.C`, or None."""
        found: Node | None = self.node
        for name in path.split("."):
            found = entries(found).get(name) if isinstance(found, MappingNode) else None
        return found

    def text(self, path: str) -> str:
        """The value at a path as it is written; empty where there is none."""
        found = self.find(path)
        if not isinstance(found, ScalarNode) or found.tag == "tag:yaml.org,2002:null":
            return ""
        return str(found.value)

    def line(self, path: str) -> int:
        """The line of a setting, or of the nearest one above it that is written; from 1."""
        found, near = None, path
        while found is None and near:
            found, near = self.find(near), near.rpartition(".")[0]
        return (found or self.node).start_mark.line + 1

    def texts(self, path: str) -> dict[str, str]:
        """The scalars of the map at a path, by name; empty where there is none."""
        found = self.find(path)
        names = entries(found) if isinstance(found, MappingNode) else {}
        return {name: text for name in names if (text := self.text(f"{path}.{name}"))}


def read(path: Path) -> Mapping[str, Node]:
    """Clusters by name. `BadInput` gives line and reason where a file is broken."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BadInput(f"byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise BadInput(f"it cannot be read: {error.strerror}") from error


def parse(text: str) -> Mapping[str, Node]:
    """The same for the text of a file."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError as error:
        raise BadInput("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadInput(f"line {mark.line + 1 if mark else '?'}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise BadInput("it holds a character that YAML does not allow") from error
    _require_unique(root)
    clusters = entries(root).get("Clusters") if isinstance(root, MappingNode) else None
    if not isinstance(clusters, MappingNode):
        near = clusters or root
        line = near.start_mark.line + 1 if near else 1
        raise BadInput(f"line {line}: there is no map `Clusters`{_older(root)}")
    return entries(clusters)


def _older(root: Node | None) -> str:
    """What to do with a file that arvados-ws alone read (`arvados-ws -legacy-ws-config`)."""
    names = entries(root).keys() if isinstance(root, MappingNode) else ()
    if not _ARVADOS_WS.intersection(names):
        return ""
    return (
        ": this is a file of arvados-ws from before Arvados 1.4. Give Arvados' config.yml instead"
        ' ("Migrating Configuration" in Arvados\' guide says how to make one of it)'
    )


def choose(clusters: Mapping[str, Node], name: str = "") -> ClusterConfig:
    """The cluster of this name, or the only one; `BadInput` says which there are."""
    if not name and len(clusters) == 1:
        (name,) = clusters
    node = clusters.get(name)
    if isinstance(node, MappingNode):
        return ClusterConfig(name, node)
    if node is not None:
        raise BadInput(f"line {node.start_mark.line + 1}: {name}: this is no map of settings")
    there = ", ".join(sorted(clusters)) or "none"
    asked = f", not {name}" if name else ": `arvados-nats --cluster-id NAME …`"
    raise BadInput(f"name one of its clusters ({there}){asked}")


def _require_unique(root: Node | None) -> None:
    """BadInput where a name is written twice, anywhere: one of the two would be lost.

    A node that has many aliases is looked at once.
    """
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            waiting += entries(node).values()
        elif isinstance(node, SequenceNode):
            waiting += node.value


def entries(node: MappingNode, depth: int = 0) -> dict[str, Node]:
    """Name -> node, also of maps that are merged into it (`<<`); `BadInput` for a name that is
    written twice: one of them would be lost."""
    found: dict[str, Node] = {}
    merged: dict[str, Node] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise BadInput(f"line {line}: this is no name of a setting")
        if key.value in found:
            raise BadInput(f"line {line}: {key.value} is written twice")
        if key.tag != _MERGE:
            found[str(key.value)] = value
            continue
        if depth == _MERGES:
            raise BadInput(f"line {line}: more than {_MERGES} maps are merged into each other")
        for part in value.value if isinstance(value, SequenceNode) else [value]:
            merged = {
                **(entries(part, depth + 1) if isinstance(part, MappingNode) else {}),
                **merged,
            }
    return {**merged, **found}


def duration(text: str) -> timedelta | None:
    """What Go's duration text means, such as `336h` or `1h30m`; None if it is none."""
    if text == "0":
        return timedelta()
    if not _DURATION.fullmatch(text):
        return None
    return timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(text)))
