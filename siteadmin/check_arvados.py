# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether Arvados' API answers, tells clients our address, and has the right time.

A part of `check connections`. What it looks at is the configuration that the controller gives to
everybody: what is written in config.yml counts only once the controller was restarted.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from siteadmin import clocks
from siteadmin.check_config import websocket_faults
from siteadmin.check_connections import Findings

_WITHIN_SECONDS = 10.0
_CONFIG = "/arvados/v1/config"
_DATE_RESOLUTION = 1.0


async def check(url: str, *, ca_file: str | None = None, insecure: bool = False) -> Findings:
    """`url` is the controller's, as `https://host[:port]`."""
    try:
        verify: ssl.SSLContext | bool = not insecure
        if ca_file and not insecure:
            verify = ssl.create_default_context(cafile=ca_file)
        async with httpx.AsyncClient(verify=verify, timeout=_WITHIN_SECONDS) as client:
            asked = time.time()  # noqa: TID251  (clocks are compared)
            answer = await client.get(f"{url}{_CONFIG}")
            answered = time.time()  # noqa: TID251
            config = answer.json() if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, OSError, ValueError) as error:
        return {"Arvados": f"{url} does not answer as Arvados does: {error}"}
    if not isinstance(config, dict):
        return {"Arvados": f"{url}{_CONFIG} is answered with status {answer.status_code}"}
    found: Findings = {"Arvados": _faults(config)}
    if date := answer.headers.get("Date"):
        theirs = parsedate_to_datetime(date).timestamp()
        found["clock of Arvados"] = clocks.wrong(
            clocks.ahead(asked, theirs, answered, _DATE_RESOLUTION)
        )
    return found


def _faults(config: Mapping[str, Any]) -> str | None:
    """What is wrong with the exported configuration."""
    services = config.get("Services") or {}

    def url(service: str) -> str:
        return str((services.get(service) or {}).get("ExternalURL") or "")

    faults = websocket_faults(url("Websocket"), url("Controller"))
    return "; ".join(f"Services.Websocket.ExternalURL: {fault}" for fault in faults) or None
