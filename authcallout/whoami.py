# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answer `arvados.api.whoami`: who you are, where and to what you may subscribe, and how.

A refused client cannot ask, and the server tells it nothing: `arvados-nats whoami` then looks at
the token itself (arvados_nats/commands/nats_login.py).
"""

from __future__ import annotations

from collections import Counter
from typing import NoReturn

import msgspec

from arvados_nats.contract import answers, subjects
from arvados_nats.contract.answers import Busy, Whoami
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused
from arvados_nats.nats import responder
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permissions import request_info
from arvados_nats.permissions.grant_subjects import OVERFLOW
from arvados_nats.permissions.request_info import Holder
from authcallout.admissions import MAX_PATTERNS, listening
from authcallout.token_cache import TokenCache

QUEUE = "authcallout"
PER_USER = 8
"""Answers for one user that are under way."""


async def answer(nats: Nats, grants: GrantsCache, tokens: TokenCache, limit: int) -> NoReturn:
    """Answer requests until cancelled."""
    under_way: Counter[str] = Counter()

    async def asked(message: Message) -> Whoami:
        if message.data.strip() not in (b"", b"{}"):
            raise BadInput("whoami takes no fields: send nothing")
        sender = request_info.sender(message.headers)
        if under_way[sender.user_uuid] >= PER_USER:
            raise Busy("too many requests are under way: wait for an answer, then ask again")
        under_way[sender.user_uuid] += 1
        try:
            return await _whoami(sender, grants, tokens, limit)
        finally:
            under_way[sender.user_uuid] -= 1
            if not under_way[sender.user_uuid]:
                del under_way[sender.user_uuid]

    async def reply(message: Message) -> None:
        try:
            found = await asked(message)
        except ArvadosNatsError as error:
            refusal = answers.failure(error)
            await nats.publish(message.reply, refusal.data, headers=refusal.headers)
        else:
            await nats.publish(message.reply, msgspec.json.encode(found))
            await nats.publish(message.reply, headers={answers.END: "end"})

    await responder.answer(nats, {subjects.API_WHOAMI: reply}, queue=QUEUE)


async def _whoami(
    sender: Holder, grants: GrantsCache, tokens: TokenCache, limit: int = MAX_PATTERNS
) -> Whoami:
    identity = (await tokens.of([sender.token_uuid])).get(sender.token_uuid)
    if identity is None:
        raise Refused("the token is not known any more")
    held = await grants.of(sender.user_uuid)
    account, live = listening(identity, held, limit)
    return Whoami(
        user_uuid=held.user_uuid,
        token_uuid=sender.token_uuid,
        account=account,
        is_admin=held.is_admin,
        is_active=held.is_active,
        inbox_prefix=request_info.inbox_prefix(
            sender.user_uuid, sender.token_uuid, identity.scopes
        ),
        subscribe=live.patterns,
        subscriptions=live.needed,
        overflow=live.overflow,
        advice=OVERFLOW if live.overflow else "",
    )
