# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where to log in, and where Workbench is: what Arvados says of itself to everybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urljoin

from arvados_nats import urls
from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.config_source import WORKBENCHES, origins
from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable
from arvados_nats.single_flight import SingleFlight

_SITE_SECONDS = 60.0
_RETRY_SECONDS = 1.0
MOST_ORIGINS = 100
"""Pages about which Arvados is asked in that time, since anybody may ask; of others it is not."""
_LONGEST = 2000


class Site:
    """What Arvados says of itself to everybody, asked now and then."""

    def __init__(self, arvados: Arvados) -> None:
        self._arvados = arvados
        self._asking = asyncio.Lock()
        self._known: dict[str, str] | None = None
        self._until = 0.0
        self._refusals: dict[str, str | None] = {}
        """By the origin of a page; None while Arvados has not told."""
        self._trying = SingleFlight[str, str]("login refusal")

    async def get(self, return_to: str = "") -> dict[str, str]:
        """Where to log in, and where Workbench is; and why Arvados would not lead back there."""
        site = await self._site()
        if not return_to or not site["login"].startswith(site["controller"]):
            return site  # another cluster's trusted clients are its own affair
        origin, refusals = origin_of(return_to), self._refusals
        if origin not in refusals and len(refusals) >= MOST_ORIGINS:
            return site
        refused = refusals.setdefault(origin, None)
        if refused is None:
            refused = refusals[origin] = await self._trying.ask(
                origin, lambda: self._arvados.login_refusal(f"{origin}/")
            )
        return {**site, "refused": refused}

    async def _site(self) -> dict[str, str]:
        async with self._asking:
            if self._known is None or time.monotonic() > self._until:
                self._known = site_of(await self._arvados.exported_config())
                self._refusals = {}
                self._until = time.monotonic() + _SITE_SECONDS
            return self._known


def site_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What the page needs of an exported configuration. In a federation the login cluster asks
    who somebody is, and is told for which cluster."""
    cluster = str(config.get("ClusterID", ""))
    services = config.get("Services") or {}
    controller = _url(services.get("Controller"))
    asked = str((config.get("Login") or {}).get("LoginCluster") or cluster)
    login = urljoin(controller, "/login")
    if asked != cluster:
        other = (config.get("RemoteClusters") or {}).get(asked) or {}
        scheme, host = other.get("Scheme") or "https", other.get("Host")
        if not host:
            raise Unavailable(f"Arvados does not tell where its login cluster {asked} is")
        login = f"{scheme}://{host}/login?{urlencode({'remote': cluster})}"
    workbench = _url(services.get("Workbench2"))
    return {"cluster": cluster, "controller": controller, "login": login, "workbench": workbench}


async def learn_origins(arvados: Arvados, allowed: set[str]) -> None:
    """Allow the pages that Arvados has itself, or any where it names none."""
    while not allowed:
        try:
            services = (await arvados.exported_config()).get("Services") or {}
        except ArvadosNatsError:
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            pages = (_url(services.get(name)) for name in WORKBENCHES)
            allowed.update(origins(pages) or ["*"])


def origin_of(address: str) -> str:
    """The origin of a page's address, as `Login.TrustedClients` names it."""
    parts = urls.split(address)
    if parts.scheme in ("http", "https") and parts.hostname and len(address) < _LONGEST:
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    raise BadInput("return_to is the address of a page")


def _url(service: Any) -> str:
    return str((service or {}).get("ExternalURL") or "")
