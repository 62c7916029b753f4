# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answer the NATS servers' question, for each login: who is this, and what may they do?

A yes or a clear no is signed; what could not be decided in time is `Unavailable`, and gets no
answer (`desk`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from arvados_nats.arvados.identities import Identities
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.permissions.grant_subjects import OVERFLOW
from arvados_nats.permissions.rule import Identity
from arvados_nats.service import machine_keys, tracing
from authcallout import callout_response, metrics
from authcallout.admissions import MAX_PATTERNS, admission, machine
from authcallout.callout_request import CalloutRequest
from authcallout.callout_response import Admission
from authcallout.connections import Connection
from authcallout.nkey_jwt import Signer

logger = logging.getLogger(__name__)

PROBE = "arvados-nats-health-probe"
"""What health logs in with, to see that the servers get an answer; any replica refuses it."""

_KIND, _TYPES = "Client", ("nats", "websocket")


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """`budget` is in seconds, for one login in all."""

    at_once: int = 1000
    budget: float = 1.2
    patterns: int = MAX_PATTERNS


class Callout:
    """Decides logins. `admitted` is told of each connection that is let in, and with what; `room`
    says whether there is any for one more of the same."""

    def __init__(
        self,
        identities: Identities,
        grants: GrantsCache,
        *,
        limits: LoginLimits,
        admitted: Callable[[Connection, Token, Identity, Admission], None],
        room: Callable[[Identity], Awaitable[bool]],
        made_for_a_machine: Callable[[str], bool],
    ) -> None:
        self._identities = identities
        self._grants = grants
        self._limits = limits
        self._admitted = admitted
        self._room = room
        self._made_for_a_machine = made_for_a_machine

    @property
    def budget(self) -> float:
        """Seconds from a question's arrival to its answer; later nobody waits for it."""
        return self._limits.budget

    def at_once(self, request: CalloutRequest, signer: Signer) -> bytes | None:
        """The signed answer to a request that nobody need be asked about; None for any other."""
        if request.token.secret == PROBE:
            return callout_response.refuse(request, "this is no token but a probe", signer)
        try:
            self._check_client(request)
            host = machine_keys.named(request.token.secret)
            return self._answer_machine(request, host, signer) if host else None
        except Refused as error:
            return self._refuse(request, error, signer)

    async def answer(self, request: CalloutRequest, arrived: float, signer: Signer) -> bytes:
        """The signed answer to a request that came then; Unavailable if there is none in time."""
        try:
            async with asyncio.timeout_at(arrived + self._limits.budget):
                with tracing.span("token identified"):
                    identity = await self._identities.of(request.token, request.host)
                with tracing.span("grants read"):
                    grants = await self._grants.of(identity.user_uuid)
                # Last of all: nothing is waited for until it is counted.
                if not await self._room(identity):
                    raise Refused("too many connections of this user, or of this container")
            found = admission(identity, grants, asks=request.asks, limit=self._limits.patterns)
        except Refused as error:
            return self._refuse(request, error, signer)
        except TimeoutError as error:
            raise Unavailable("no decision about the login in time") from error
        connection = Connection(request.server_id, request.cid)
        self._admitted(connection, request.token, identity, found)
        metrics.logins.labels("admitted").inc()
        if found.left_out:
            _note_overflow(identity, found)
        tracing.note(outcome="admitted", user_uuid=identity.user_uuid)
        return callout_response.admit(request, found, signer, until=identity.expires_at)

    def _answer_machine(self, request: CalloutRequest, host: str, signer: Signer) -> bytes:
        """Let a machine in that has a key of its own; neither Arvados nor the grants are asked."""
        if not self._made_for_a_machine(request.token.secret):
            raise Refused("the key of a machine was not made from the seed `system-logs` of here")
        metrics.logins.labels("admitted").inc()
        return callout_response.admit(request, machine(host), signer, until=None)

    def _check_client(self, request: CalloutRequest) -> None:
        """What the server does not check for callout users (docs/facts/nats-callout.md 1.3)."""
        if request.kind != _KIND or request.connection_type not in _TYPES:
            raise Refused(f"connections of kind {request.kind!r} cannot use an Arvados token")
        if not request.token.secret:
            raise Refused("no token: give an Arvados token as the NATS token or password")
        if not request.token.usable:
            raise Refused("the token has characters that no Arvados token has")

    def _refuse(self, request: CalloutRequest, error: Refused, signer: Signer) -> bytes:
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
        return callout_response.refuse(request, str(error), signer)


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
