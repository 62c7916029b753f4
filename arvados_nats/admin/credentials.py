# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Show a running unit its secrets anew, which systemd before version 258 does at a start alone.

It keeps them on a file system that is mounted read-only; its files carry who may read them. So they
are written where they are, in a mount namespace in which that place may be written.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from arvados_nats.admin import unit_files
from arvados_nats.admin.unit_files import Unit
from arvados_nats.errors import ConfigError

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE, _MS_REMOUNT, _MS_BIND = 0x4000, 0x40000, 0x20, 0x1000
_HARDENED = 0x2 | 0x4 | 0x8
"""nosuid, nodev, noexec: as systemd mounts it."""


def show(name: str, folders: Iterable[Path], credentials: Path) -> list[str]:
    """Write what has changed of a unit's credentials; the names of those."""
    unit = unit_files.find(name, folders)
    if unit is None:
        raise ConfigError(f"there is no unit {name}")
    shown = credentials / name
    changed = list(_changed(unit, shown))
    if changed and os.statvfs(shown).f_flag & os.ST_RDONLY:
        _make_writable(shown)
    for path, content in changed:
        _write(path, content)
    return [path.name for path, _ in changed]


def _changed(unit: Unit, shown: Path) -> Iterator[tuple[Path, bytes]]:
    """In the order of the unit: formers first, so that no key is missing for a moment."""
    wanted = unit.credentials()
    for name in unit.load:
        content, path = wanted[name], shown / name
        if content is None:
            raise ConfigError(f"{unit.load[name]} cannot be read: nothing was changed")
        data = content.encode("utf-8", errors="surrogateescape")
        with _named(path):
            if data != path.read_bytes():
                yield path, data


def _write(path: Path, content: bytes) -> None:
    """In place, in one step for whoever reads: who may read it stands on the file."""
    with _named(path), open(path, "r+b", buffering=0) as file:
        file.write(content)
        file.truncate(len(content))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{path}: {error.strerror}; restart the unit instead"
        raise ConfigError(reason) from error


def _make_writable(place: Path) -> None:
    """For this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result:
            number = ctypes.get_errno()
            raise ConfigError(f"{place}: {os.strerror(number)}; restart the unit instead")

    check(libc.unshare(_CLONE_NEWNS))
    check(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    flags = _MS_REMOUNT | _MS_BIND | _HARDENED
    check(libc.mount(None, os.fsencode(place), None, flags, None))
