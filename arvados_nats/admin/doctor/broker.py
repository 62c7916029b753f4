# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""NATS as each service has it: its seeds, the streams and their disk, and a login's way."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime
from pathlib import Path

import httpx

from arvados_nats.admin import check_connections, check_streams
from arvados_nats.admin.doctor.finding import Finding, of_check, of_reason, ok, skipped, wrong
from arvados_nats.admin.doctor.services import Service
from arvados_nats.admin.unit_files import Unit
from arvados_nats.arvados.tokens import NOBODY
from arvados_nats.errors import ArvadosNatsError, Disagreement, Refused, said
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.accounts_config import AccountLimits
from arvados_nats.service import keys

_WITHIN_SECONDS = 5.0
_ANSWER_SECONDS = 1.5
"""The servers say no by themselves after 2 s: that is no answer."""
_LOGINS = 3
_SERVER = "systemctl restart arvados-nats-server"
_INIT = "arvados-nats init (it writes nats.conf anew)"
_SENDS, _PAYLOAD = ("publisher", "callout"), AccountLimits().payload
_MENDS = {
    "NATS": f"{_SERVER}; journalctl -u arvados-nats-server -n 20",
    "publishers": "systemctl restart arvados-nats-publishers",
    "clock of NATS": "timedatectl set-ntp true, here and on the NATS servers",
    "storage": "lower ARVADOS_NATS_*_MAX_BYTES or raise max_file_store; after a full disk"
    f" {_SERVER}",
    "disk": "lower ARVADOS_NATS_*_MAX_BYTES or give NATS a larger disk",
}


async def logins(service: Service) -> list[Finding]:
    """Whether NATS lets the service in with each of its seeds."""
    return list(await asyncio.gather(*(_login(service, role) for role in service.kind.logins)))


async def _login(service: Service, role: str) -> Finding:
    part, settings = f"{service.name}: NATS as {role}", service.settings
    seed = settings.seed(role)
    try:
        async with nats_client.connect(
            settings.nats_servers, name="arvados-nats doctor", seed=seed,
            ca_file=settings.nats_ca_file, timeout=_WITHIN_SECONDS,
        ) as nats:  # fmt: skip
            if role in _SENDS and nats.max_payload < _PAYLOAD:
                text = f"max_payload of the server is {nats.max_payload}, and {_PAYLOAD} is needed"
                return wrong(part, text, f"correct nats.conf, or {_INIT}; then {_SERVER}")
            return ok(part, keys.parse_seed(seed).public)
    except Refused as error:
        mend = f"{_INIT}, then {_SERVER}"
        return wrong(part, str(error), mend)
    except Disagreement as error:
        return wrong(part, str(error), f"install nats-server 2.14 or newer, then {_SERVER}")
    except (ArvadosNatsError, OSError) as error:
        return wrong(part, said(error), of_reason(said(error)) or _MENDS["NATS"])


async def streams(wsproxy: Service, store: Path | None, *, logs: bool) -> list[Finding]:
    """Whether messages pass, the streams are there and whole, and have room."""
    settings = wsproxy.settings
    servers, seed, ca = settings.nats_servers, settings.seed("wsproxy"), settings.nats_ca_file
    found = await check_connections.nats(servers, seed, logs=logs, ca_file=ca)
    told = list(of_check(found, _MENDS, _MENDS["publishers"]))
    if found.get("NATS"):
        return told
    try:
        whole = await check_streams.check(servers, seed, store, ca_file=ca)
    except (ArvadosNatsError, OSError) as error:
        return [*told, wrong("streams", said(error), _SERVER)]
    lines = {part: "; ".join(faults) or None for part, faults in whole.items()}
    lines = {part: fault for part, fault in lines.items() if not found.get(part)}
    if store is None:
        told.append(skipped("disk of NATS", "its server is not on this machine"))
    return told + list(of_check(lines, _MENDS, _MENDS["publishers"]))


async def login_way(service: Service) -> Finding:
    """A login with a token goes from NATS to authcallout and back: one that nobody has.

    The first may find all of Arvados asleep, and people try again, too.
    """
    part, settings = "a login's way", service.settings
    for _ in range(_LOGINS):
        asked = time.monotonic()
        try:
            async with nats_client.connect(
                settings.nats_servers, name="arvados-nats doctor",
                token=NOBODY.secret,
                ca_file=settings.nats_ca_file, timeout=_WITHIN_SECONDS,
            ):  # fmt: skip
                text = "NATS lets everybody in: is auth_callout configured?"
                return wrong(part, text, f"arvados-nats init, then {_SERVER}")
        except Refused:
            taken = time.monotonic() - asked
            if taken < _ANSWER_SECONDS:
                return ok(part, f"a token that nobody has is refused in {taken:.2f} s")
        except (ArvadosNatsError, OSError) as error:
            return wrong(part, said(error), of_reason(said(error)) or _SERVER)
    text = "no callout service answers NATS in time: nobody can log in with a token"
    return wrong(part, text, "systemctl restart arvados-nats-authcallout")


async def server(unit: Unit) -> list[Finding]:
    """Whether the server of this machine runs with the nats.conf that is written."""
    if (path := unit.config) is None:
        return []  # told with the files
    try:
        conf, written = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except (OSError, UnicodeError):
        return []  # told with the files
    monitor = re.search(r'^http: "([^"]+)"', conf, re.MULTILINE)
    if monitor is None:
        return [skipped("nats-server", "its nats.conf has no `http`, by which it could be asked")]
    try:
        async with httpx.AsyncClient(timeout=_WITHIN_SECONDS) as client:
            told = (await client.get(f"http://{monitor[1]}/varz")).json()
        loaded = datetime.fromisoformat(told["config_load_time"]).timestamp()
    except (httpx.HTTPError, ValueError, KeyError) as error:
        text = f"it does not answer at {monitor[1]}: {type(error).__name__}"
        return [wrong("nats-server", text, f"{_SERVER}; journalctl -u arvados-nats-server -n 20")]
    if loaded + 1 < written:
        since = time.strftime("%F %T UTC", time.gmtime(written))
        text = f"it runs with an older configuration than {path}"
        return [wrong("nats-server", text, _SERVER, since=since)]
    return [ok("nats-server", f"version {told.get('version')}")]


def store(unit: Unit) -> Path | None:
    """The folder of the streams, if it is on this machine."""
    try:
        conf = unit.config.read_text(encoding="utf-8") if unit.config else ""
    except (OSError, UnicodeError):
        return None
    found = re.search(r'store_dir: "([^"]+)"', conf)
    return Path(found[1]) if found and Path(found[1]).is_dir() else None
