# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the tokens behind connections are: learnt at login, or asked of the permission publisher.

Another replica may have let a connection in; its token's owner and scopes are then read from the
database. Tokens that are no rows there (SystemRootToken, anonymous) are known only where they
logged in: elsewhere their connections are cut, and come back here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

import msgspec

from arvados_nats import grants_wire, subjects
from arvados_nats.errors import MALFORMED, ArvadosNatsError
from arvados_nats.grants_wire import TokensAnswer
from arvados_nats.nats_client import Nats
from arvados_nats.permissions import Identity

logger = logging.getLogger(__name__)

_REMEMBERED = 100_000


class TokenBook:
    """Identities by token uuid."""

    def __init__(self, nats: Nats) -> None:
        self._nats = nats
        self._known: dict[str, Identity] = {}

    def learn(self, identity: Identity) -> None:
        """Remember who logged in with a token."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[identity.token_uuid] = identity

    def forget(self, token_uuid: str) -> None:
        self._known.pop(token_uuid, None)

    async def of(self, token_uuids: Iterable[str]) -> dict[str, Identity]:
        """The identities behind these tokens, as far as anybody knows them."""
        asked = set(token_uuids)
        unknown = sorted(asked - self._known.keys())
        if unknown:
            for identity in await self._ask(unknown):
                self.learn(identity)
        return {uuid: self._known[uuid] for uuid in asked if uuid in self._known}

    async def _ask(self, token_uuids: list[str]) -> list[Identity]:
        try:
            reply = await self._nats.request(subjects.TOKENS_GET, json.dumps(token_uuids).encode())
            grants_wire.check_answer(reply.headers)
            answer = msgspec.json.decode(reply.data, type=TokensAnswer)
        except (*MALFORMED, ArvadosNatsError) as error:
            logger.warning(
                "tokens not known", extra={"action": "tokens.unknown", "error": str(error)}
            )
            return []
        return [
            Identity(state.token_uuid, state.user_uuid, scopes=state.scopes)
            for state in answer.tokens
        ]
