# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Arvados as each service has it: database, API and log token, and ways from end to end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arvados_nats.admin import (
    check_arvados,
    check_config,
    check_connections,
    check_postgres,
    status_cli,
)
from arvados_nats.admin.doctor.finding import Finding, of_check, ok, skipped, wrong
from arvados_nats.admin.doctor.services import Service
from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados import config as arvados_config
from arvados_nats.arvados.client import Arvados, NotFound
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused
from arvados_nats.service import http_server

_INIT = "arvados-nats --arvados-config /etc/arvados/config.yml init"
_NTP = "timedatectl set-ntp true, on both machines"
_MENDS = {
    "clock of PostgreSQL": _NTP,
    "clock of Arvados": _NTP,
    "Arvados": "correct ARVADOS_API_HOST, Services.Websocket.ExternalURL or the CA file",
    "API server of Arvados": "systemctl restart arvados-railsapi, or nginx",
    "release of Arvados": "upgrade Arvados",
    "PostgreSQL": "run role.sql if that was never done, or correct ARVADOS_NATS_POSTGRES_DSN or"
    " pg_hba.conf, then systemctl restart arvados-nats-publishers",
    "tables of Arvados": "run role.sql again (docs/install.md)",
}


async def database(publishers: Service) -> list[Finding]:
    """The publishers' own login: what it may read, and whether rows are stored."""
    dsn = publishers.settings.postgres_dsn.get_secret_value()
    if not dsn:
        return []  # told with the files
    found = await check_postgres.check(dsn)
    return list(of_check(found, _MENDS, _MENDS["PostgreSQL"]))


async def row_way(publishers: Service) -> Finding:
    """Whether the newest row of Arvados is in the stream of events."""
    part, settings = "a row's way", publishers.settings
    try:
        standing = await status_cli.look(
            settings.nats_servers, settings.seed("publisher"),
            settings.postgres_dsn.get_secret_value(), ca_file=settings.nats_ca_file,
        )  # fmt: skip
    except ArvadosNatsError as error:
        return skipped(part, f"{error}: see above")
    if standing.missing:
        since = status_cli.shown(standing.stored)
        text = f"rows of Arvados are not in ARVADOS_EVENTS, by {standing.behind:.0f} s"
        return wrong(part, text, publishers.restart, since=since)
    if standing.row is None:
        return skipped(part, "Arvados has no row of the last hour")
    return ok(part, f"the newest row is stored, {standing.behind:.1f} s behind")


async def api(service: Service) -> list[Finding]:
    """Whether the API answers the service as it needs it."""
    settings = service.settings
    if not settings.arvados_api_host:
        return []  # told with the files
    found = await check_arvados.check(
        settings.arvados_url,
        ca_file=settings.arvados_ca_file,
        insecure=settings.arvados_api_host_insecure,
    )
    return list(of_check(found, _MENDS, _MENDS["Arvados"]))


async def log_token(publishers: Service) -> list[Finding]:
    """Whether the publishers' token is an admin's, and reads a container's log."""
    settings = publishers.settings
    token = Token(settings.log_token.get_secret_value())
    if not token.secret or not settings.arvados_api_host:
        return []  # told with the files
    part = "publishers: log token"
    mend = f"put an admin's token into ARVADOS_NATS_LOG_TOKEN ({_INIT}), then {publishers.restart}"
    try:
        async with arvados_client.connect(
            settings.arvados_url,
            ca_file=settings.arvados_ca_file,
            insecure=settings.arvados_api_host_insecure,
        ) as arvados:
            user = await arvados.current_user(token)
            if not user.get("is_admin"):
                return [wrong(part, "it is no admin's: most logs cannot be read", mend)]
            return [ok(part), await _log_way(arvados, token)]
    except Refused as error:
        return [wrong(part, f"Arvados refuses it ({error})", mend)]
    except ArvadosNatsError as error:
        return [skipped(part, str(error))]


async def _log_way(arvados: Arvados, token: Token) -> Finding:
    part = "a log byte's way"
    query: dict[str, Any] = {
        "filters": [["container_uuid", "!=", None]], "order": ["modified_at desc"], "limit": 1,
        "select": ["uuid", "container_uuid"], "count": "none",
    }  # fmt: skip
    found = (await arvados.get(token, "container_requests", query)).get("items") or []
    if not found:
        return skipped(part, "Arvados has no container")
    request, container = found[0]["uuid"], found[0]["container_uuid"]
    try:
        sizes = await arvados.log_sizes(token, request, container)
    except NotFound:
        return ok(part, f"{container} has no log, says the controller")
    except ArvadosNatsError as error:
        mend = "see to the controller and the way from it to the compute nodes"
        return wrong(part, f"the log of {container} cannot be read: {error}", mend)
    return ok(part, f"{container} has {len(sizes)} files")


async def sockets(wsproxy: Service) -> list[Finding]:
    """Whether wsproxy answers on this machine and, if Arvados names it, at its public address."""
    settings = wsproxy.settings
    address = http_server.here(settings.listen)
    if address.endswith(":0"):
        return [skipped("wsproxy: sockets", "set ARVADOS_NATS_LISTEN to a port")]
    if settings.tls_certificate:
        return [skipped("wsproxy: sockets", "it serves TLS itself: give --proxy wss://HOST")]
    found = await check_connections.proxy(f"ws://{address}")
    mend = f"{wsproxy.restart}; journalctl -u arvados-nats-wsproxy -n 20"
    return list(of_check({f"{part}, here": told for part, told in found.items()}, {}, mend))


async def public(url: str, ca_file: str | None) -> list[Finding]:
    """The same at an address that was given."""
    found = await check_connections.proxy(url, ca_file=ca_file)
    mend = "see to nginx: its site, its certificate, and that it leads to wsproxy"
    return list(of_check({f"{part} at {url}": told for part, told in found.items()}, {}, mend))


def config(services: list[Service], file: Path, name: str) -> Iterator[Finding]:
    """What of Arvados' own file keeps events from flowing, and what was copied and has changed."""
    if not os.path.isfile(file):
        return
    part = str(file)
    try:
        cluster = arvados_config.choose(arvados_config.read(file), name or _cluster(services, file))
        findings = check_config.check(file, cluster.name)[cluster.name]
    except BadInput as error:
        yield wrong(part, str(error), f"correct {file}", here=True)
        return
    for found in findings:
        yield wrong(part, str(found), f"correct {file}, and restart Arvados", here=True)
    copies = {"log_token": "SystemRootToken", "management_token": "ManagementToken"}
    for service in services:
        for field, setting in copies.items():
            copied, there = getattr(service.settings, field, None), cluster.text(setting)
            if copied and there and copied.get_secret_value() not in ("", there):
                text = f"{setting} is not the one that {service.name} has"
                mend = f"{_INIT}, then {service.restart}"
                yield wrong(part, text, mend, since=_changed(file), here=True)
    if not findings:
        yield ok(part)


def _cluster(services: list[Service], file: Path) -> str:
    """The cluster of a file with several whose controller the services ask."""
    hosts = {service.settings.arvados_api_host for service in services if _asks(service)}
    clusters = arvados_config.read(file)
    for name in clusters:
        url = arvados_config.choose(clusters, name).text("Services.Controller.ExternalURL")
        if url.partition("://")[2].rstrip("/") in hosts:
            return name
    return ""


def _asks(service: Service) -> bool:
    return bool(getattr(service.settings, "arvados_api_host", ""))


def _changed(file: Path) -> str:
    return time.strftime("%F %T UTC", time.gmtime(file.stat().st_mtime))
