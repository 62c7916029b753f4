# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answer who may read what, and which tokens live: every replica, in one queue group.

Each question is read from the database, since an answer from memory could be older than a change
that was already told. After an answer all replicas are told who was given which version.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.errors import MALFORMED, ArvadosNatsError, BadInput
from arvados_nats.nats import responder
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import (
    FAILED,
    GrantsAnswer,
    GrantsAnswered,
    GrantsQuestion,
)
from publishers.permissions import metrics
from publishers.permissions.query import GrantsQuery, Reading
from publishers.permissions.token_query import TokenQuery

logger = logging.getLogger(__name__)

QUEUE = "permissions"
MAX_ASKED = 1000
"""Users, or tokens, in one question."""
_AT_ONCE = 3
"""Questions that are read at once; the others wait, so that the pool has room for the leader."""


async def answer(
    nats: Nats, grants: GrantsQuery, tokens: TokenQuery, ready: Callable[[], None] = lambda: None
) -> NoReturn:
    """Answer until cancelled."""

    def answering(read: Callable[[Message], Awaitable[None]]) -> responder.Handler:
        async def reply(message: Message) -> None:
            try:
                with metrics.ANSWER_SECONDS.time():
                    await read(message)
            except ArvadosNatsError as error:
                await _not_answered(nats, message, error)

        return reply

    handlers = {
        subjects.GRANTS_GET: answering(lambda message: _answer_grants(nats, grants, message)),
        subjects.TOKENS_GET: answering(lambda message: _answer_tokens(nats, tokens, message)),
    }
    await responder.answer(nats, handlers, queue=QUEUE, at_once=_AT_ONCE, ready=ready)


async def _not_answered(nats: Nats, message: Message, error: ArvadosNatsError) -> None:
    metrics.UNANSWERED.inc()
    logger.warning(
        "question not answered",
        extra={"action": "grants.unanswered", "subject": message.subject, "error": str(error)},
    )
    await nats.publish(message.reply, headers={FAILED: str(error)})


async def _answer_grants(nats: Nats, query: GrantsQuery, message: Message) -> None:
    question = grants_messages.question(message.data)
    if len(question.users) > MAX_ASKED:
        raise BadInput(f"more than {MAX_ASKED} users in one question")
    if question.at and (found := await query.read_at(question.users, question.at)):
        await _send(nats, message, _only_at(question, found))
        return
    reading = await query.read(question.users)
    await _send(nats, message, _without_known(question, reading))
    note = GrantsAnswered(reading.generation, dict(reading.versions))
    await nats.publish(subjects.GRANTS_ANSWERED, grants_messages.encode(note))


async def _send(nats: Nats, message: Message, answer: GrantsAnswer) -> None:
    for headers, piece in grants_messages.parts(answer):
        await nats.publish(message.reply, piece, headers=headers)


def _only_at(question: GrantsQuestion, reading: Reading) -> GrantsAnswer:
    """Nobody is said to hold a version now: whether all else is as it was is seen by the asker."""
    users = [grants_messages.user_grants(u, grants, "") for u, grants in reading.grants.items()]
    return GrantsAnswer(
        reading.generation, reading.now, reading.role_groups_visible, users, [], question.at
    )


def _without_known(question: GrantsQuestion, reading: Reading) -> GrantsAnswer:
    same = [user for user, version in reading.versions.items() if question.users[user] == version]
    changed = reading.grants.keys() - same
    return GrantsAnswer(
        reading.generation,
        reading.now,
        reading.role_groups_visible,
        [
            grants_messages.user_grants(user, grants, reading.versions[user])
            for user, grants in reading.grants.items()
            if user in changed
        ],
        same,
    )


async def _answer_tokens(nats: Nats, query: TokenQuery, message: Message) -> None:
    try:
        asked = msgspec.json.decode(message.data, type=list[str])
    except MALFORMED as error:
        raise BadInput(f"not a list of tokens: {error}") from error
    if len(asked) > MAX_ASKED:
        raise BadInput(f"more than {MAX_ASKED} tokens in one question")
    await nats.publish(message.reply, grants_messages.encode(await query.states(asked)))
