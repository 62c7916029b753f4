# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Hear which of the tokens in use are gone, and ask for those that a lost notice was about.

The sibling of `grants_watch` for tokens: a notice on `arvados.tokens.gone.<token>` acts at once; at
intervals, when a publisher takes over and when the connection is back, all tokens in use are asked
about. So is each token soon after it came into use: it may be dead or changed since it was let in,
and what is asked about the publisher watches, however briefly it has lived. A second question finds
what changed after the first answer and before the publisher looked. Tokens that are no rows of
the database are left out (`own_tokens`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NoReturn

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.errors import MALFORMED, BadInput, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import (
    TOKEN_STALE,
    TokenGone,
    TokensAnswer,
    TokenState,
)
from arvados_nats.permission_client.own_tokens import OwnTokens
from arvados_nats.permissions.rule import Identity

logger = logging.getLogger(__name__)

_REFRESH = 60.0
NEW = 1.0
"""Seconds between two looks for tokens that came into use."""
RETRY = 5.0
"""Seconds after which an unanswered question is asked again."""
_AT_ONCE = 500

Gone = Callable[[str, str], Awaitable[None]]
"""Told a token's uuid and why it is gone: `expired`, `deleted` or `changed`; or that it is `stale`,
and Arvados is to be asked about it. Of any token where a notice says so, of those in use where the
answer to a question does."""


async def follow(
    nats: Nats,
    own: OwnTokens,
    in_use: Callable[[], Mapping[str, Identity | None]],
    gone: Gone,
    *,
    lives: Callable[[str], None] = lambda _: None,
) -> NoReturn:
    """Run until cancelled. `in_use` gives the tokens to ask about by uuid, and as whose and with
    which scopes they are used, if known: one that the database tells otherwise is told `stale`, and
    `lives` is called of one that it tells likewise."""
    wake = asyncio.Event()

    async def told(message: Message) -> None:
        await gone(message.subject.rpartition(".")[2], _reason(message.data))

    async def started(_: Message) -> None:
        wake.set()

    def connection_changed(connected: bool) -> None:
        if connected:
            wake.set()

    nats.on_change(connection_changed)
    await nats.subscribe(f"{subjects.TOKENS_GONE}.*", told)
    await nats.subscribe(subjects.GRANTS_STARTED, started)
    once: set[str] = set()
    settled: set[str] = set()
    next_round = 0.0
    while True:
        using = in_use()
        if time.monotonic() >= next_round:
            once, settled, next_round = {*using}, set(), time.monotonic() + _REFRESH
        due = using.keys() - settled
        answered = await _check(nats, own, {uuid: using[uuid] for uuid in due}, gone, lives)
        if answered:
            once, settled = due, (settled | (due & once)) & using.keys()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NEW if answered else RETRY):
                await wake.wait()
                next_round = 0.0
        wake.clear()


async def live(nats: Nats, token_uuids: Iterable[str]) -> dict[str, TokenState]:
    """The live ones among these tokens. Unavailable if nobody can say."""
    return (await _ask(nats, token_uuids))[0]


async def _ask(nats: Nats, token_uuids: Iterable[str]) -> tuple[dict[str, TokenState], set[str]]:
    """The live ones among these tokens, and which of them are stale."""
    asked = sorted(set(token_uuids))
    found: dict[str, TokenState] = {}
    stale: set[str] = set()
    for at in range(0, len(asked), _AT_ONCE):
        payload = msgspec.json.encode(asked[at : at + _AT_ONCE])
        reply = await nats.request(subjects.TOKENS_GET, payload)
        grants_messages.check_answer(reply.headers)
        try:
            answer = msgspec.json.decode(reply.data, type=TokensAnswer)
        except MALFORMED as error:
            raise BadInput(f"not an answer about tokens: {error}") from error
        found.update((state.token_uuid, state) for state in answer.tokens)
        stale.update(
            state.token_uuid
            for state in answer.tokens
            if state.refreshes_at is not None and state.refreshes_at <= answer.now
        )
    return found, stale


async def _check(
    nats: Nats,
    own: OwnTokens,
    tokens: Mapping[str, Identity | None],
    gone: Gone,
    lives: Callable[[str], None],
) -> bool:
    """Whether there was an answer; acts on it."""
    asked: list[str] = []
    try:
        asked += [token for token in tokens if await own.of_uuid(token) is None]
        found, stale = await _ask(nats, asked)
    except (Unavailable, BadInput) as error:
        logger.warning(
            "tokens not checked",
            extra={"action": "tokens.stale", "tokens": len(tokens), "error": str(error)},
        )
        return False
    for token in asked:
        if token not in found:
            await gone(token, "expired")
        elif token in stale or _differs(found[token], tokens[token]):
            await gone(token, TOKEN_STALE)
        elif tokens[token] is not None:
            lives(token)
    return True


def _differs(state: TokenState, used: Identity | None) -> bool:
    return used is not None and (state.user_uuid, state.scopes) != (used.user_uuid, used.scopes)


def _reason(payload: bytes) -> str:
    try:
        return msgspec.json.decode(payload, type=TokenGone).reason
    except MALFORMED as error:
        raise BadInput(f"not a notice about a token: {error}") from error
