# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where the NATS servers' questions about logins wait for their turn, and are answered.

One task a request, at most `LoginLimits.at_once` of them and fewer while they are slow (`pace`);
others wait, the newest goes first, and one that has waited for longer than its client does is
dropped unopened (`waiting`).
Where Arvados or the database cannot be asked in time, nothing is answered (`Unavailable`,
`BadInput`): the server's own time limit refuses the login, and nobody learns from it (style: refuse
against abort). Clients give up after 2 s, so we do before. Those whose library takes the second
refusal for the last word are cut before the server refuses them, and come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from arvados_nats.arvados.turns import Crowded
from arvados_nats.errors import ArvadosNatsError, BadInput, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.service import tracing
from authcallout import callout_request, metrics
from authcallout.callout import Callout
from authcallout.callout_request import CalloutRequest
from authcallout.connections import Connection
from authcallout.keyring import Keyring, Pair
from authcallout.pace import Pace
from authcallout.waiting import Waiting

logger = logging.getLogger(__name__)

SUBJECT = "$SYS.REQ.USER.AUTH"
QUEUE = "authcallout"

_XKEY = "Nats-Server-Xkey"
_WAITING = 4
"""So many wait for each that is decided at the same time, at most."""

Outcome = Callable[[ArvadosNatsError | None], None]
"""Called when a login was decided (None) that somebody had to be asked about, and when one was not,
with the reason."""


class Desk:
    """Where the servers' questions wait for their turn; `serve` until cancelled. `cut` closes a
    connection that is not let in yet."""

    def __init__(
        self,
        auth: Nats,
        callout: Callout,
        keyring: Keyring,
        outcome: Outcome,
        cut: Callable[[Connection], Awaitable[None]],
        *,
        at_once: int,
    ) -> None:
        self._auth = auth
        self._callout = callout
        self._keyring = keyring
        self._outcome = outcome
        self._cut = cut
        self._at_once = at_once
        self._pace = Pace(at_once, callout.budget)
        self._waiting = Waiting[Message](callout.budget, _WAITING * at_once)
        self._turn = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._sent_away: set[asyncio.Task[None]] = set()

    async def serve(self, ready: Callable[[], None]) -> None:
        """Answer requests of the callout account."""
        await self._auth.subscribe(SUBJECT, self._receive, queue=QUEUE)
        await self._auth.flush()
        ready()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._dispatch())
                tasks.create_task(self._auth.until_closed())
        finally:
            for task in self._under_way | self._sent_away:
                task.cancel()

    async def _receive(self, message: Message) -> None:
        self._drop(self._waiting.add(asyncio.get_running_loop().time(), message))
        self._turn.set()

    def _drop(self, late: list[Message]) -> None:
        if late:
            metrics.logins.labels("late").inc(len(late))
            self._outcome(Unavailable("more logins come than can be decided in time"))
        for message in late:
            self._send_away(message, 0)

    async def _dispatch(self) -> None:
        """Begin with the newest, one in each turn of the loop, so that new ones are heard of."""
        loop = asyncio.get_running_loop()
        while True:
            await self._turn.wait()
            self._drop(self._waiting.forget_late(loop.time()))
            if not self._waiting or len(self._under_way) >= self._pace.at_once:
                self._turn.clear()
                continue
            arrived, message = self._waiting.newest()
            task = asyncio.create_task(self._handle(message, arrived))
            self._under_way.add(task)
            task.add_done_callback(self._done)
            metrics.under_way.set(len(self._under_way))
            await asyncio.sleep(0)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._turn.set()

    async def _handle(self, message: Message, arrived: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with tracing.span("login decided"):
            decided = await self._decide(message, arrived)
        took = loop.time() - began
        if decided is not None:
            self._pace.took(loop.time(), took, len(self._under_way), decided=decided)

    async def _decide(self, message: Message, arrived: float) -> bool | None:
        """Whether it could be; None where nobody was asked, which says nothing of who could be."""
        loop = asyncio.get_running_loop()
        request: CalloutRequest | None = None
        try:
            request, pair = self._opened(message)
            known = self._callout.at_once(request, pair.signer)
            answer = known or await self._callout.answer(request, arrived, pair.signer)
            sealed = pair.envelope.seal(answer, message.headers[_XKEY])
            await self._auth.publish(message.reply, sealed)
            if known is None:  # The others say nothing of whom we have to ask.
                self._outcome(None)
            return True
        except ArvadosNatsError as error:
            metrics.logins.labels("dropped").inc()
            tracing.note(outcome="dropped")
            crowded = isinstance(error, Crowded)
            if not crowded:
                self._outcome(error)
                logger.warning(
                    "login not decided", extra={"action": "callout.dropped", "reason": str(error)}
                )
            if request is None or request.takes_no_for_an_answer:
                self._send_away(message, arrived + self._callout.budget)
            return None if crowded else False
        finally:
            metrics.seconds.observe(loop.time() - arrived)

    def _opened(self, message: Message) -> tuple[CalloutRequest, Pair]:
        server_xkey = message.headers.get(_XKEY, "")
        if not server_xkey:
            raise BadInput("the callout request is not sealed; set xkey in auth_callout")
        opened, pair = self._keyring.open(message.data, server_xkey)
        return callout_request.parse(opened), pair

    def _send_away(self, message: Message, at: float) -> None:
        """Close the connection of one who would not come back after the server's own refusal: not
        before that time, since whoever is closed comes back."""

        async def send_away() -> None:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(at - loop.time(), 0))
            with contextlib.suppress(BadInput):
                request, _ = self._opened(message)
                if request.takes_no_for_an_answer:
                    await self._cut(Connection(request.server_id, request.cid))

        if len(self._sent_away) < self._at_once:
            task = asyncio.create_task(send_away())
            self._sent_away.add(task)
            task.add_done_callback(self._sent_away.discard)
