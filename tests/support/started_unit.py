# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Become a unit of ours as systemd would: `python started_unit.py NAME CREDENTIALS UNITS...`.

As a user without a home, who sees what the unit shows it and nothing else. Needs `arvados_nats`
alone, so that a root with nothing but the package can start its units with it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from arvados_nats.admin import unit_files

_NOBODY = 65534


def command(name: str, units: list[Path], credentials: Path) -> tuple[list[str], dict[str, str]]:
    """What systemd would run, and the environment of that; the credentials are laid out."""
    unit = unit_files.find(name, units)
    assert unit is not None, f"there is no {name}"
    shown = credentials / name
    shutil.rmtree(shown, ignore_errors=True)
    shown.mkdir(parents=True)
    environment = dict(unit_files.with_credentials(unit, shown))
    environment |= {"CREDENTIALS_DIRECTORY": str(shown), "HOME": "/", "PATH": "/usr/bin:/bin"}
    program = [word.replace("${CREDENTIALS_DIRECTORY}", str(shown)) for word in unit.program]
    own = [shown, *shown.iterdir()]
    if unit.state:
        own.append(Path("/var/lib") / unit.state)
        own[-1].mkdir(parents=True, exist_ok=True)
    if unit.dynamic_user and (prefix := _as_nobody(program[0])):
        program = [*prefix, *program]
        for path in own:
            os.chown(path, _NOBODY, _NOBODY)
    return program, environment


@functools.cache
def _as_nobody(program: str) -> tuple[str, ...]:
    """What runs a program as nobody special; nothing where that one may not enter our folders."""
    if os.getuid() != 0:
        return ()
    ids = f"--reuid={_NOBODY} --regid={_NOBODY} --clear-groups --pdeathsig TERM"
    prefix = ("/usr/bin/setpriv", *ids.split())
    done = subprocess.run([*prefix, program, "--version"], capture_output=True, check=False)
    return prefix if done.returncode == 0 else ()


if __name__ == "__main__":
    _name, _credentials, *_units = sys.argv[1:]
    _program, _environment = command(_name, [Path(path) for path in _units], Path(_credentials))
    os.execve(_program[0], _program, _environment)
