# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether the services run, and what they say of themselves: systemd's word, then their health."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from arvados_nats.admin.doctor.finding import Finding, ok, skipped, wrong
from arvados_nats.admin.doctor.services import Service
from arvados_nats.admin.unit_files import Unit
from arvados_nats.errors import said
from arvados_nats.service import http_server, ops

_WITHIN_SECONDS = 10.0
_BOOTED = Path("/run/systemd/system")
_ASKED = "LoadState,ActiveState,SubState,Result,ExecMainStatus,NRestarts,UnitFileState"
_SINCE = re.compile(r" \(since ([^)]*)\)")
_OFTEN = 3


def of_systemd(unit: Unit) -> Iterator[Finding]:
    """What systemd knows of a unit; nothing where there is no systemd."""
    program = shutil.which("systemctl")
    if program is None or not _BOOTED.exists():
        return
    done = subprocess.run(
        [program, "show", "-p", f"{_ASKED},StateChangeTimestamp", unit.name],
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    yield from examine(unit.name, done.stdout)


def examine(name: str, shown: str) -> Iterator[Finding]:
    """The same for what `systemctl show` has printed."""
    told = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    short, since = name.removesuffix(".service"), told.get("StateChangeTimestamp", "")
    journal = f"journalctl -u {short} -n 20"
    if told.get("LoadState") == "not-found":
        text = "systemd does not know it yet"
        yield wrong(name, text, f"systemctl daemon-reload && systemctl enable --now {short}")
        return
    if told.get("ActiveState") not in ("active", "activating", "reloading"):
        status = told.get("ExecMainStatus", "")
        text = f"it does not run ({told.get('Result', '')}, exit code {status}): {journal}"
        yield wrong(name, text, f"systemctl start {short}", since=since)
    elif int(told.get("NRestarts") or 0) >= _OFTEN:
        text = f"it was started again {told['NRestarts']} times"
        yield wrong(name, text, journal, since=since)
    else:
        yield ok(f"{name}: systemd")
    if told.get("UnitFileState") == "disabled":
        text = "it does not start with the machine"
        yield wrong(name, text, f"systemctl enable {short}")


async def health(service: Service) -> list[Finding]:
    """What the service says about itself at its address of operations."""
    part, settings = f"{service.name}: health", service.settings
    address = http_server.here(settings.ops_listen)
    if address.endswith(":0"):
        return [skipped(part, "set ARVADOS_NATS_OPS_LISTEN to a port")]
    headers = {"Authorization": f"Bearer {settings.management_secret() or ''}"}
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{address}", timeout=_WITHIN_SECONDS, headers=headers
        ) as client:
            answer = await client.get("/_health/ping")
            body = answer.json() if answer.status_code == httpx.codes.OK else {}
    except (httpx.HTTPError, ValueError) as error:
        taken = _answers(address)
        text = (
            f"something else answers at {address}"
            if taken
            else f"nothing answers at {address} ({said(error)}): it does not run"
        )
        return [wrong(part, text, service.restart)]
    return list(_told(service, part, answer.status_code, body))


def _told(service: Service, part: str, status: int, body: Any) -> Iterator[Finding]:
    if status in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
        text = f"it was started with another ManagementToken (status {status})"
        yield wrong(part, text, service.restart)
    elif status != httpx.codes.OK or "health" not in body:
        yield wrong(part, f"something else answers there (status {status})", service.restart)
    elif error := body.get("error"):
        for fault in str(error).split("; "):
            since = _SINCE.search(fault)
            text = _SINCE.sub("", fault)
            yield wrong(part, text, _mend(text, service), since=since[1] if since else "")
    elif (version := body.get("version", "an older one")) != ops.VERSION:
        text = f"it runs as version {version}, and {ops.VERSION} is installed"
        yield wrong(part, text, service.restart)
    else:
        notes = "; ".join(f"{name}: {note}" for name, note in (body.get("notes") or {}).items())
        yield ok(part, notes)


def _mend(text: str, service: Service) -> str:
    """The command in a fault's own text, if it has one."""
    _, run, command = text.partition("run ")
    return command if run else f"see what stands before this, and: {_log(service)}"


def _log(service: Service) -> str:
    if service.unit:
        return f"journalctl -u {service.unit.name.removesuffix('.service')} -n 50"
    return "kubectl logs this pod"


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
    except OSError:
        return False
