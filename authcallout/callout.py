# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answer the NATS servers' question, for each login: who is this, and what may they do?

One task a request, at most `Limits.at_once` of them and fewer while they are slow (`pace`); others
wait, the newest goes first, and one that has waited for longer than its client does is dropped
unopened (`waiting`).
A clear no is answered at once. Where Arvados or the database cannot be asked in time, nothing is
answered (`Unavailable`, `BadInput`): the server's own time limit refuses the login, and nobody
learns from it (style: refuse against abort). Clients give up after 2 s, so we do before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from arvados_nats.arvados.identities import Identities
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permissions.grant_subjects import OVERFLOW
from arvados_nats.permissions.rule import Identity
from arvados_nats.service import machine_keys, tracing
from arvados_nats.service.keys import Seed
from authcallout import callout_request, callout_response, metrics
from authcallout.admissions import MAX_PATTERNS, admission, machine
from authcallout.callout_request import CalloutRequest
from authcallout.callout_response import Admission
from authcallout.connections import Connection
from authcallout.nkey_jwt import Signer
from authcallout.pace import Pace
from authcallout.waiting import Waiting
from authcallout.xkey import Envelope

logger = logging.getLogger(__name__)

SUBJECT = "$SYS.REQ.USER.AUTH"
QUEUE = "authcallout"

PROBE = "arvados-nats-health-probe"
"""What health logs in with, to see that the servers get an answer; any replica refuses it."""

_KIND, _TYPES = "Client", ("nats", "websocket")
_WAITING = 4
"""So many wait for each that is decided at the same time, at most."""

Outcome = Callable[[ArvadosNatsError | None], None]
"""Called when a login was decided (None), and when it was not, with the reason."""


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """`budget` is in seconds, for one login in all."""

    at_once: int = 1000
    budget: float = 1.2
    patterns: int = MAX_PATTERNS


class Callout:
    """Decides logins. `admitted` is told of each connection that is let in, and with what; `room`
    says whether there is any for one more of the same; `machines` is the seed of their keys."""

    def __init__(
        self,
        identities: Identities,
        grants: GrantsCache,
        signer: Signer,
        *,
        limits: LoginLimits,
        admitted: Callable[[Connection, Token, Identity, Admission], None],
        room: Callable[[Identity], Awaitable[bool]],
        machines: Seed | None = None,
    ) -> None:
        self._identities = identities
        self._grants = grants
        self._signer = signer
        self._limits = limits
        self._admitted = admitted
        self._room = room
        self._machines = machines

    @property
    def budget(self) -> float:
        """Seconds from a question's arrival to its answer; later nobody waits for it."""
        return self._limits.budget

    async def answer(self, request: CalloutRequest, arrived: float) -> bytes:
        """The signed answer to a request that came then; Unavailable if there is none in time."""
        if request.token.secret == PROBE:
            return callout_response.refuse(request, "this is no token but a probe", self._signer)
        try:
            if host := machine_keys.named(request.token.secret):
                return self._answer_machine(request, host)
            async with asyncio.timeout_at(arrived + self._limits.budget):
                with tracing.span("token identified"):
                    identity = await self._identify(request)
                with tracing.span("grants read"):
                    grants = await self._grants.of(identity.user_uuid)
            found = admission(identity, grants, asks=request.asks, limit=self._limits.patterns)
        except Refused as error:
            self._note_refusal(request, error)
            return callout_response.refuse(request, str(error), self._signer)
        except TimeoutError as error:
            raise Unavailable("no decision about the login in time") from error
        connection = Connection(request.server_id, request.cid)
        self._admitted(connection, request.token, identity, found)
        metrics.logins.labels("admitted").inc()
        if found.left_out:
            _note_overflow(identity, found)
        tracing.note(outcome="admitted", user_uuid=identity.user_uuid)
        return callout_response.admit(request, found, self._signer, until=identity.expires_at)

    def _answer_machine(self, request: CalloutRequest, host: str) -> bytes:
        """Let a machine in that has a key of its own; neither Arvados nor the grants are asked."""
        self._check_client(request)
        if self._machines is None or not machine_keys.is_of(self._machines, request.token.secret):
            raise Refused("the key of a machine was not made from the seed `system-logs` of here")
        metrics.logins.labels("admitted").inc()
        return callout_response.admit(request, machine(host), self._signer, until=None)

    async def _identify(self, request: CalloutRequest) -> Identity:
        self._check_client(request)
        identity = await self._identities.of(request.token, request.host)
        if not await self._room(identity):
            raise Refused("too many connections of this user, or of this container")
        return identity

    def _check_client(self, request: CalloutRequest) -> None:
        """What the server does not check for callout users (docs/facts/nats-callout.md 1.3)."""
        if request.kind != _KIND or request.connection_type not in _TYPES:
            raise Refused(f"connections of kind {request.kind!r} cannot use an Arvados token")
        if not request.token.secret:
            raise Refused("no token: give an Arvados token as the NATS token or password")
        if not request.token.usable:
            raise Refused("the token has characters that no Arvados token has")

    def _note_refusal(self, request: CalloutRequest, error: Refused) -> None:
        metrics.logins.labels("refused").inc()
        tracing.note(outcome="refused")
        logger.info(
            "login refused",
            extra={
                "action": "callout.refused",
                "reason": str(error),
                "token_uuid": request.token.uuid,
                "host": request.host,
                "cid": request.cid,
            },
        )


def _note_overflow(identity: Identity, found: Admission) -> None:
    metrics.overflows.inc()
    logger.warning(
        OVERFLOW,
        extra={
            "action": "callout.overflow",
            "user_uuid": identity.user_uuid,
            "token_uuid": identity.token_uuid,
            "patterns": found.left_out,
        },
    )


class Desk:
    """Where the servers' questions wait for their turn; `serve` until cancelled."""

    def __init__(
        self, auth: Nats, callout: Callout, envelope: Envelope, outcome: Outcome, *, at_once: int
    ) -> None:
        self._auth = auth
        self._callout = callout
        self._envelope = envelope
        self._outcome = outcome
        self._pace = Pace(at_once, callout.budget)
        self._waiting = Waiting[Message](callout.budget, _WAITING * at_once)
        self._turn = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()

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
            for task in self._under_way:
                task.cancel()

    async def _receive(self, message: Message) -> None:
        self._drop(self._waiting.add(asyncio.get_running_loop().time(), message))
        self._turn.set()

    def _drop(self, count: int) -> None:
        if count:
            metrics.logins.labels("late").inc(count)
            self._outcome(Unavailable("more logins come than can be decided in time"))

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
        self._pace.took(loop.time(), took, len(self._under_way), decided=decided)

    async def _decide(self, message: Message, arrived: float) -> bool:
        """Whether it could be."""
        loop = asyncio.get_running_loop()
        try:
            server_xkey = message.headers.get("Nats-Server-Xkey", "")
            if not server_xkey:
                raise BadInput("the callout request is not sealed; set xkey in auth_callout")
            request = callout_request.parse(self._envelope.open(message.data, server_xkey))
            answer = await self._callout.answer(request, arrived)
            await self._auth.publish(message.reply, self._envelope.seal(answer, server_xkey))
            self._outcome(None)
            return True
        except ArvadosNatsError as error:
            metrics.logins.labels("dropped").inc()
            tracing.note(outcome="dropped")
            self._outcome(error)
            logger.warning(
                "login not decided", extra={"action": "callout.dropped", "reason": str(error)}
            )
            return False
        finally:
            metrics.seconds.observe(loop.time() - arrived)
