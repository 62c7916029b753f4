# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where Arvados is and with which token, read as Arvados' own command line tools read it.

The environment goes before the first `settings.conf` of: the folders in $CONFIGURATION_DIRECTORY,
$XDG_CONFIG_HOME (`~/.config`), $XDG_CONFIG_DIRS (sdk/python/arvados/config.py and
_internal/basedirs.py; a test holds the two equal). That package is not imported: it brings a client
of its own, and a command should be there at once.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlunsplit

from arvados_nats import trust, urls
from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.client.errors import CERTIFICATES
from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError, BadInput, ConfigError, Unavailable, said

_TRUE = frozenset({"1", "t", "true", "y", "yes"})
_AUTHORITIES = (
    "/etc/arvados/ca-certificates.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
)
"""Where Arvados' tools look for certificates after SSL_CERT_FILE (sdk/python/arvados/util.py)."""

_DNS = "arvadosapi.com"


@dataclass(frozen=True, slots=True)
class ArvadosSettings:
    """A cluster and a token. `ca_file`: certificates to trust, None for those of the system."""

    host: str
    token: Token
    insecure: bool = False
    ca_file: str | None = None

    @property
    def url(self) -> str:
        return self.host if "://" in self.host else f"https://{self.host}"

    def connect(self) -> AbstractAsyncContextManager[Arvados]:
        """A client of the cluster's API."""
        return arvados_client.connect(self.url, ca_file=self.ca_file, insecure=self.insecure)

    def ssl_context(self) -> ssl.SSLContext:
        """How servers of the cluster prove who they are."""
        context = trust.authority(self.ca_file)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def read(environment: Mapping[str, str] = os.environ) -> ArvadosSettings:
    """The settings; ConfigError names what is missing."""
    found = _from_file(environment)
    found |= {name: value for name, value in environment.items() if name.startswith("ARVADOS_")}
    for name, what in (("ARVADOS_API_HOST", "host name"), ("ARVADOS_API_TOKEN", "your token")):
        if not found.get(name):
            raise ConfigError(
                f"{name} is not set: give the {what.removeprefix('your ')} of your cluster in the"
                f" environment or in ~/.config/arvados/settings.conf"
                " (Workbench shows both under Get API token)"
            )
    return ArvadosSettings(
        host=found["ARVADOS_API_HOST"],
        token=Token(found["ARVADOS_API_TOKEN"]),
        insecure=found.get("ARVADOS_API_HOST_INSECURE", "").lower() in _TRUE,
        ca_file=next(filter(os.path.exists, _authorities(environment)), None),
    )


def _authorities(environment: Mapping[str, str]) -> Iterator[str]:
    if given := environment.get("SSL_CERT_FILE"):
        yield given
    yield from _AUTHORITIES


def _from_file(environment: Mapping[str, str]) -> dict[str, str]:
    for folder in _folders(environment):
        try:
            text = (folder / "settings.conf").read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {folder / 'settings.conf'}: {said(error)}") from error
        return dict(_assignments(text))
    return {}


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, found, value = line.rstrip().partition("=")
        if found and not name.lstrip().startswith("#"):
            yield name, value


def _folders(environment: Mapping[str, str]) -> Iterator[Path]:
    yield from _absolute(environment.get("CONFIGURATION_DIRECTORY", ""))
    home = next(_absolute(environment.get("HOME", "")), None) or Path.home()
    own = next(_absolute(environment.get("XDG_CONFIG_HOME", "")), home / ".config")
    shared = _absolute(environment.get("XDG_CONFIG_DIRS") or "/etc/xdg")
    yield from (folder / "arvados" for folder in (own, *shared))


def _absolute(folders: str) -> Iterator[Path]:
    yield from (Path(folder) for folder in folders.split(":") if Path(folder).is_absolute())


async def stream_url(settings: ArvadosSettings, proxy: str | None) -> str:
    """Address of protocol v1: of the proxy that was named, or of the one that the cluster names."""
    if proxy:
        return at_stream(proxy)
    named = (await discovery(settings)).get("websocketUrl")
    if not named:
        raise ConfigError(
            f"the cluster at {settings.host} names no websocket server"
            " (Services.Websocket.ExternalURL); name the proxy with --proxy"
        )
    return at_stream(str(named))


async def discovery(settings: ArvadosSettings) -> dict[str, Any]:
    """What the cluster tells everybody of itself."""
    try:
        async with settings.connect() as arvados:
            return await arvados.discovery()
    except ArvadosNatsError as error:
        trust = CERTIFICATES if "CERTIFICATE_VERIFY_FAILED" in str(error) else ""
        raise Unavailable(
            f"cannot ask Arvados at {settings.host} where its messages are: {error}{trust};"
            " check ARVADOS_API_HOST, or name the proxy with --proxy"
        ) from error


def at_stream(url: str) -> str:
    """The address of protocol v1 beside `/websocket`, or on the host that is named."""
    parts = urls.split(url if "://" in url else f"wss://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigError(f"not the address of a WebSocket proxy: {url}")
    path = parts.path.rstrip("/").removesuffix("/websocket").removesuffix("/v1/stream")
    return urlunsplit((scheme, parts.netloc, f"{path}/v1/stream", "", ""))


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
