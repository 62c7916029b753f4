# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Files that change under a process: Kubernetes swaps a link, people and systemd write anew."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def state(places: Iterable[Path]) -> frozenset[tuple[str, int, int, int]]:
    """What changes when a file does, or one of a folder: looked at through links, not read."""
    found = set()
    for path in (inside for place in places for inside in _inside(place)):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.add((str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return frozenset(found)


def _inside(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if not path.name.startswith(".")]
    except NotADirectoryError:
        return [place]
    except OSError:
        return []


def read(path: Path) -> bytes:
    """What stands in a small file; nothing where it cannot be read."""
    try:
        return path.read_bytes().strip()
    except OSError:
        return b""
