# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the tokens behind connections are: learnt at login, or asked of the permission publisher.

Another replica may have let a connection in; its token's owner and scopes are then read from the
database. Tokens that are no rows there (SystemRootToken, anonymous) are known only where they
logged in: elsewhere their connections are cut, and come back here.
"""

from __future__ import annotations

from collections.abc import Iterable

from arvados_nats import token_follow
from arvados_nats.nats_client import Nats
from arvados_nats.permissions import Identity

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

    def known(self, token_uuids: Iterable[str]) -> dict[str, Identity]:
        """The identities behind these tokens, as far as they are remembered here."""
        return {uuid: self._known[uuid] for uuid in token_uuids if uuid in self._known}

    async def of(self, token_uuids: Iterable[str]) -> dict[str, Identity]:
        """The identities behind those of these tokens that live. Unavailable if nobody can say."""
        asked = set(token_uuids)
        found = self.known(asked)
        for state in (await token_follow.live(self._nats, asked - found.keys())).values():
            identity = Identity(state.token_uuid, state.user_uuid, scopes=state.scopes)
            self.learn(identity)
            found[identity.token_uuid] = identity
        return found
