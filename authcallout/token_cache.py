# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the tokens behind connections are: learnt at login, or asked of the permission publisher.

Another replica may have let a connection in; its token's owner and scopes are then read from the
database. Tokens that are no rows there (SystemRootToken, anonymous) are known only where they
logged in: elsewhere their connections are cut, and come back here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from arvados_nats.arvados.tokens import Token
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import tokens_watch
from arvados_nats.permissions.rule import Identity

_REMEMBERED = 100_000


class TokenCache:
    """Identities by token uuid."""

    def __init__(self, nats: Nats) -> None:
        self._nats = nats
        self._known: dict[str, Identity] = {}
        self._tokens: dict[str, Token] = {}

    def learn(self, identity: Identity, token: Token | None = None) -> None:
        """Remember who logged in with a token, and the token itself while it is in use here."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
            self._tokens.clear()
        self._known[identity.token_uuid] = identity
        if token:
            self._tokens[identity.token_uuid] = token

    def login(self, token_uuid: str) -> tuple[Token, Identity] | None:
        """With what, and as whom, somebody logged in here, so that Arvados can be asked again."""
        token, identity = self._tokens.get(token_uuid), self._known.get(token_uuid)
        return (token, identity) if token and identity else None

    def keep_only(self, token_uuids: Collection[str]) -> None:
        """Forget the tokens of those who have gone."""
        for uuid in self._tokens.keys() - set(token_uuids):
            del self._tokens[uuid]

    def forget(self, token_uuid: str) -> None:
        self._known.pop(token_uuid, None)
        self._tokens.pop(token_uuid, None)

    def known(self, token_uuids: Iterable[str]) -> dict[str, Identity]:
        """The identities behind these tokens, as far as they are remembered here."""
        return {uuid: self._known[uuid] for uuid in token_uuids if uuid in self._known}

    async def of(self, token_uuids: Iterable[str]) -> dict[str, Identity]:
        """The identities behind those of these tokens that live. Unavailable if nobody can say."""
        asked = set(token_uuids)
        found = self.known(asked)
        for state in (await tokens_watch.live(self._nats, asked - found.keys())).values():
            identity = Identity(state.token_uuid, state.user_uuid, scopes=state.scopes)
            self.learn(identity)
            found[identity.token_uuid] = identity
        return found
