# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Say who the token is, and what it may do on NATS: Arvados is asked, then the NATS server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from arvados_nats.commands import nats_login
from arvados_nats.commands.arvados_settings import ArvadosSettings
from arvados_nats.commands.nats_login import Granted, Holder
from arvados_nats.commands.sanitize import harmless
from arvados_nats.errors import ArvadosNatsError, Refused

_SHOWN = 20


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that was found out. `error`: Arvados' no; `nats_error`: why NATS lets nobody in."""

    host: str
    error: str = ""
    user_uuid: str = ""
    username: str = ""
    is_active: bool | None = None
    is_admin: bool | None = None
    token_uuid: str = ""
    scopes: tuple[str, ...] = ()
    expires_at: str | None = None
    container_uuid: str | None = None
    nats_url: str = ""
    nats_error: str = ""
    nats: Granted | None = None

    @property
    def good(self) -> bool:
        """Whether the token is accepted everywhere it was tried."""
        return not self.error and not self.nats_error


async def look(settings: ArvadosSettings, nats_url: str | None) -> Report:
    """Find out; raises Unavailable when Arvados cannot be asked."""
    report = Report(settings.host)
    try:
        async with settings.connect() as arvados:
            who = await nats_login.holder(arvados, settings.token)
    except Refused as error:
        return msgspec.structs.replace(report, error=str(error))
    found = msgspec.structs.replace(report, **_of(settings, who))
    if not nats_url:
        return found
    return msgspec.structs.replace(
        found, nats_url=nats_url, **await _on_nats(settings, nats_url, who)
    )


def _of(settings: ArvadosSettings, who: Holder) -> dict[str, Any]:
    return {
        "user_uuid": who.user_uuid,
        "username": str(who.user.get("username") or ""),
        "is_active": who.user.get("is_active"),
        "is_admin": who.user.get("is_admin"),
        "token_uuid": who.token_uuid,
        "scopes": who.scopes,
        "expires_at": who.token.get("expires_at"),
        "container_uuid": settings.token.container_uuid,
    }


async def _on_nats(settings: ArvadosSettings, url: str, who: Holder) -> dict[str, Any]:
    try:
        return {"nats": await nats_login.granted(url, settings.token, who)}
    except ArvadosNatsError as error:
        return {"nats_error": str(error)}


def text(report: Report) -> str:
    """The report for a person."""
    lines = _lines(report)
    return "".join(
        f"{name + ':' if name else '':<10}{harmless(value.encode())}\n" for name, value in lines
    )


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    yield "Arvados", report.host
    if report.error:
        yield "refused", report.error
        return
    yield "user", " ".join(_user(report))
    yield "token", report.token_uuid
    yield "scopes", " ".join(report.scopes) or "none: it can do nothing"
    yield "expires", report.expires_at or "not by itself"
    if report.container_uuid:
        yield "of", f"container {report.container_uuid}: it may write that log on NATS"
    if report.nats_url:
        yield "NATS", report.nats_url
    if report.nats_error:
        yield "refused", report.nats_error
    if report.nats:
        yield from _granted(report.nats)


def _user(report: Report) -> Iterator[str]:
    yield report.user_uuid
    yield report.username
    if report.is_active is False:
        yield "(inactive)"
    if report.is_admin:
        yield "(admin)"


def _granted(granted: Granted) -> Iterator[tuple[str, str]]:
    yield "account", granted.account
    yield "inbox", f"{granted.inbox_prefix} (the inbox prefix of the connection that asks)"
    if granted.overflow:
        yield "subjects", f"none of {granted.subscriptions}: {granted.advice}"
        return
    name = "subjects"
    for subject in granted.subscribe[:_SHOWN]:
        yield name, subject
        name = ""
    if len(granted.subscribe) > _SHOWN:
        yield "", f"… and {len(granted.subscribe) - _SHOWN} more (--json shows all)"
