# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether Arvados' API answers, with the right time, a release and a websocket URL that serve us.

A part of `check connections`. What it looks at is the configuration that the controller gives to
everybody: what is written in config.yml counts only once the controller was restarted. A
controller gives it also while the API server behind it is down; so that one is asked about a token
that nobody has, which it has to refuse.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from arvados_nats import trust
from arvados_nats.admin import clocks
from arvados_nats.admin.check_config import websocket_faults
from arvados_nats.admin.check_connections import Findings, Note
from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import NOBODY
from arvados_nats.errors import ConfigError, said
from arvados_nats.postgres import arvados_tables

_WITHIN_SECONDS = 10.0
_CONFIG = "/arvados/v1/config"
_CURRENT = "/arvados/v1/api_client_authorizations/current"
_DISCOVERY = "/discovery/v1/apis/arvados/v1/rest"
_DATE_RESOLUTION = 1.0
_API_SERVER, _RELEASE = "API server of Arvados", "release of Arvados"
_OLDEST, _WHOLE = (2, 5), (2, 7)


async def check(url: str, *, ca_file: str | None = None, insecure: bool = False) -> Findings:
    """`url` is the controller's, as `https://host[:port]`."""
    try:
        verify: ssl.SSLContext | bool = not insecure
        if ca_file and not insecure:
            verify = trust.authority(ca_file)
        async with httpx.AsyncClient(
            base_url=url, verify=verify, timeout=_WITHIN_SECONDS
        ) as client:
            found = await _controller(client, url)
            found[_API_SERVER] = await _api_server(client)
            if not found[_API_SERVER]:
                found[_RELEASE] = await _release(client)
    except ConfigError as error:
        return {"Arvados": str(error)}
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return {"Arvados": f"{url} does not answer as Arvados does: {said(error)}"}
    return found


async def _controller(client: httpx.AsyncClient, url: str) -> Findings:
    asked = time.time()  # noqa: TID251  (clocks are compared)
    answer = await client.get(_CONFIG)
    answered = time.time()  # noqa: TID251
    config = answer.json() if answer.status_code == httpx.codes.OK else None
    if not isinstance(config, dict):
        return {"Arvados": arvados_client.not_the_controller(url, _CONFIG, answer.status_code)}
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


async def _api_server(client: httpx.AsyncClient) -> str | None:
    answer = await client.get(_CURRENT, headers={"Authorization": f"Bearer {NOBODY.secret}"})
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return None
    return (
        f"a token that nobody has is answered with status {answer.status_code}, not 401: does the"
        " API server (Rails) behind the controller run? Nobody can log in without it"
    )


async def _release(client: httpx.AsyncClient) -> str | None:
    """What the release lacks; a server that was not installed from a package tells none."""
    discovery = (await client.get(_DISCOVERY)).json()
    release = arvados_client.release(discovery) if isinstance(discovery, dict) else None
    if release is None:
        return Note("not told by its discovery document")
    told = "{}.{}".format(*release)
    if release < _OLDEST:
        return f"Arvados {told} is too old: {arvados_tables.RELEASES}"
    if release < _WHOLE:
        return Note(f"{told}: no container logs and no scoped tokens, which need 2.7")
    return None
