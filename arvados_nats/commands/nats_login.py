# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A token's login at NATS, and why there is none: a server tells the refused nothing but no.

The reason is found by looking at the token, with the rules that the callout service decides by
(authcallout/admissions.py); what only that service knows is named as a possibility.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.commands.arvados_settings import ArvadosSettings
from arvados_nats.commands.command import Notes
from arvados_nats.contract import accounts, subjects
from arvados_nats.errors import MALFORMED, Refused, Unavailable
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.addresses import is_in_the_clear
from arvados_nats.nats.client import Nats
from arvados_nats.permissions import grant_subjects, request_info
from arvados_nats.permissions.rule import ALL

_LOGIN_SECONDS = 10.0
_ANSWER_SECONDS = 1.5
"""A callout service that works answers sooner; without its answer the server says no later."""
UNKNOWN = (
    "Arvados does not know the token: it is mistyped, has expired, or was deleted, for example by"
    " logging out"
)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a token, as Arvados tells. `user` is empty if the token may not ask."""

    token: Mapping[str, Any]
    user: Mapping[str, Any]

    @property
    def token_uuid(self) -> str:
        return str(self.token.get("uuid", ""))

    @property
    def user_uuid(self) -> str:
        return str(self.token.get("owner_uuid", ""))

    @property
    def inbox_prefix(self) -> str:
        return request_info.inbox_prefix(self.user_uuid, self.token_uuid, self.scopes)

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(map(str, self.token.get("scopes") or ()))


class Granted(msgspec.Struct, frozen=True):
    """What a token is given; `account` and `subscribe` where it listens. With `overflow` its
    `subscriptions` are too many, and none is given."""

    account: str
    inbox_prefix: str
    subscribe: tuple[str, ...]
    subscriptions: int
    overflow: bool = False
    advice: str = ""
    publish: tuple[str, ...] = ()


async def holder(arvados: Arvados, token: Token) -> Holder:
    """Who holds the token; Refused with the reason if Arvados says no."""
    if not token.usable:
        raise Refused("the token has characters that no Arvados token has")
    try:
        record = await arvados.current_token(token)
    except Refused as error:
        raise Refused(UNKNOWN) from error
    user: Mapping[str, Any] = {}
    with contextlib.suppress(Refused):  # its scopes may not cover this
        user = await arvados.current_user(token)
    return Holder(record, user)


async def holder_of(settings: ArvadosSettings) -> Holder:
    """Who holds the token in the settings."""
    async with settings.connect() as arvados:
        return await holder(arvados, settings.token)


@asynccontextmanager
async def login(url: str, token: Token, who: Holder, *, asks: bool = False) -> AsyncIterator[Nats]:
    """A connection as the holder of the token, to listen or to ask; Refused with the most likely
    reason."""
    servers = [server.strip() for server in url.split(",") if server.strip()]
    for server in filter(is_in_the_clear, servers):
        Notes().tell(f"{server} is reached without TLS unless it asks for it: use tls://")
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as exits:
        try:
            nats = await exits.enter_async_context(
                nats_client.connect(
                    servers,
                    name="arvados-nats",
                    token=token.secret,
                    asks=asks,
                    inbox_prefix=who.inbox_prefix,
                    timeout=_LOGIN_SECONDS,
                )
            )
        except Refused as error:
            raise Refused(why_refused(who, time.monotonic() - began)) from error
        except Unavailable as error:
            raise Unavailable(f"NATS at {url} cannot be reached") from error
        yield nats


def why_refused(who: Holder, seconds: float) -> str:
    """The most likely reason for a login that was refused after so many seconds."""
    if ALL not in who.scopes and not grant_subjects.covered_branches(who.scopes):
        return (
            f"the token's scopes ({', '.join(who.scopes) or 'none'}) cover no kind of object that"
            " can be watched; use a token whose scope is all"
        )
    if seconds > _ANSWER_SECONDS:
        return (
            "the token is good, but the callout service has not answered the NATS server in time;"
            " its log says why, if it runs"
        )
    return (
        "the token is good now; it, or this machine's address, was probably refused too often in"
        " a short time. Wait a minute and try again; the callout service's log says more"
    )


async def granted(url: str, token: Token, who: Holder) -> Granted:
    """What the token is given, as the callout service says; Refused with the most likely reason."""
    async with login(url, token, who, asks=True) as asking:
        return await ask(asking, token, who)


async def ask(asking: Nats, token: Token, who: Holder) -> Granted:
    """The same over a connection that asks."""
    if token.container_uuid:  # it may not even ask
        inbox = subjects.inbox_prefix(who.token_uuid)
        logs = subjects.logs_of(token.container_uuid)
        return Granted(accounts.SENDERS, inbox, (f"{inbox}.>",), 1, publish=(logs,))
    said = await asking.request(subjects.API_WHOAMI)
    try:
        return msgspec.json.decode(said.data, type=Granted)
    except MALFORMED as error:
        raise Unavailable(
            f"the callout service does not say what the token gets: {said.data!r}"
        ) from error


async def require_admin(url: str, token: Token, who: Holder, what: str) -> None:
    """Refused unless the login may read our streams."""
    if (await granted(url, token, who)).account != accounts.ARVADOS:
        raise Refused(f"only administrators may watch {what}, with a token whose scope is all")
