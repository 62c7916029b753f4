# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answer native clients of account REQUESTS: `arvados.api.events`, `.logs` and `.object.<uuid>`.

A request is believed to come from whom the server names (`request_info`); what its token may read
is asked of the permission publisher for each request, so nothing here has to be revoked. While
nobody can tell, the answer is to come again later (fail closed). Replicas share the requests in one
queue group.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NoReturn, cast

from arvados_nats.contract import answers, subjects
from arvados_nats.contract.answers import Busy, Part
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.nats import responder
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import tokens_watch
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permission_client.own_tokens import OwnToken, OwnTokens
from arvados_nats.permissions import request_info
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.request_info import Holder
from arvados_nats.permissions.rule import Identity
from wsproxy import metrics
from wsproxy.native_api.answers import OBJECT, SECONDS, Answers

logger = logging.getLogger(__name__)

QUEUE = "wsproxy"
_ANONYMOUS_SCOPES = ("GET /",)
"""Fixed in Arvados (docs/facts/arvados.md 2)."""


class NativeApi:
    """All requests under way; `serve` until cancelled.

    They come over a connection of their own, `requests`: whoever sends many lets nothing else wait.
    """

    def __init__(
        self,
        requests: Nats,
        nats: Nats,
        own: OwnTokens,
        grants: GrantsCache,
        answers: Answers,
    ) -> None:
        self._requests = requests
        self._nats = nats
        self._own = own
        self._grants = grants
        self._answers = answers

    async def serve(self) -> NoReturn:
        """Answer until cancelled."""
        handlers = dict.fromkeys((*self._answers.by_name, f"{OBJECT}*"), self._take)
        await responder.answer(self._requests, handlers, queue=QUEUE)

    async def _take(self, message: Message) -> None:
        outcome = "ok"
        try:
            outcome = await self._in_turn(message)
        except Unavailable as error:  # NATS itself: nobody to tell
            outcome = "lost"
            logger.warning(
                "native request lost", extra={"action": "native.lost", "error": str(error)}
            )
        what = message.subject.removeprefix(f"{subjects.API}.").partition(".")[0]
        metrics.native_requests.labels(what, outcome).inc()

    async def _in_turn(self, message: Message) -> str:
        """Answer when there is room; what it came to."""
        try:
            sender = request_info.sender(message.headers)
            async with self._answers.turn(sender.user_uuid):
                return await self._answer(message, sender)
        except (BadInput, Refused, Busy) as error:
            return await self._send(message.reply, answers.failure(error))

    async def _answer(self, message: Message, sender: Holder) -> str:
        async def judge() -> Judge:
            return await self._judge(sender)

        outcome = "ok"
        try:
            async with asyncio.timeout(SECONDS):
                parts = self._answers.to(message.subject, message.data, judge)
                async with aclosing(cast(AsyncGenerator[Part, None], parts)) as answer:
                    async for part in answer:
                        outcome = await self._send(message.reply, part)
        except ArvadosNatsError as error:
            outcome = await self._send(message.reply, answers.failure(error))
            _note(message, sender, error)
        except TimeoutError:
            late = Unavailable("the answer takes too long")
            outcome = await self._send(message.reply, answers.failure(late))
        # The next answer begins when the server has this one, so little waits here.
        await self._requests.flush()
        return outcome

    async def _send(self, reply: str, part: Part) -> str:
        await self._requests.publish(reply, part.data, headers=part.headers)
        metrics.native_bytes.inc(len(part.data))
        return answers.code(part)

    async def _judge(self, sender: Holder) -> Judge:
        """What the sender's token may read now. Refused if it is dead."""
        identity, _ = await asyncio.gather(
            self._identity(sender), self._grants.renew([sender.user_uuid])
        )
        held = self._grants.held(sender.user_uuid)
        if held is None:
            raise Refused("the user is not known to Arvados any more: connect again")
        return self._grants.judge(identity, held)

    async def _identity(self, sender: Holder) -> Identity:
        own = await self._own.of(sender.token_uuid, sender.user_uuid)
        if own is OwnToken.ANONYMOUS:
            return Identity(sender.token_uuid, sender.user_uuid, scopes=_ANONYMOUS_SCOPES)
        found = await tokens_watch.live(self._nats, [sender.token_uuid])
        state = found.get(sender.token_uuid)
        if state is None:
            raise Refused("the token is not valid any more: connect with another one")
        return Identity(
            state.token_uuid,
            sender.user_uuid,
            scopes=state.scopes,
            expires_at=state.expires_at,
        )


def _note(message: Message, sender: Holder, error: ArvadosNatsError) -> None:
    logger.info(
        "native request not answered",
        extra={
            "action": "native.refused",
            "subject": message.subject,
            "user_uuid": sender.user_uuid,
            "error": str(error),
        },
    )
