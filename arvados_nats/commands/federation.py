# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The cluster that an object belongs to, by the first five characters of its uuid.

Arvados' controllers hand requests on to each other; messages are had where the object is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from arvados_nats.commands.arvados_settings import ArvadosSettings, discovery
from arvados_nats.contract import subjects
from arvados_nats.errors import BadInput, ConfigError

_DNS = "arvadosapi.com"


async def home(
    settings: ArvadosSettings, proxy: str | None, words: Iterable[str]
) -> ArvadosSettings:
    """Where the objects among these words are, with the token that is good there.

    The cluster that is set, where they are its own or no uuids, or where a proxy was named;
    BadInput if they are of several.
    """
    clusters = {word[:5] for word in words if subjects.is_uuid(word)}
    if not clusters or proxy:
        return settings
    if len(clusters) > 1:
        raise BadInput(f"the objects are of several clusters: {', '.join(sorted(clusters))}")
    (cluster,) = clusters
    document = await discovery(settings)
    if document.get("uuidPrefix") == cluster:
        return settings
    return replace(settings, host=_host(document, cluster), token=settings.token.salted(cluster))


def _host(document: dict[str, Any], cluster: str) -> str:
    hosts = document.get("remoteHosts")
    if isinstance(hosts, dict) and isinstance(hosts.get(cluster), str) and hosts[cluster]:
        return str(hosts[cluster])
    if document.get("remoteHostsViaDNS"):
        return f"{cluster}.{_DNS}"
    raise ConfigError(
        f"the cluster {cluster} is not known to {document.get('uuidPrefix')} (RemoteClusters):"
        " set ARVADOS_API_HOST to its own host"
    )
