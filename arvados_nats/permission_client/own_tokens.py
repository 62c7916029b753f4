# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The two tokens that this cluster has without a row: SystemRootToken and the anonymous one's.

A peer cluster chooses the uuids of its own tokens and users, and Arvados makes rows of them here,
for ordinary users (api_client_authorization.rb). So a token is one of the two only if its whole
uuid, and its user's, are named after this cluster, as its configuration says, and if its database
has no row of that uuid.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import Unavailable
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import object_messages


class OwnToken(Enum):
    """By the last part of its uuid and of its user's (docs/facts/arvados.md 2)."""

    ROOT = "000000000000000"
    ANONYMOUS = "anonymouspublic"


class OwnTokens:
    """Tells them from rows; `cluster_id` asks Arvados. All raise Unavailable if nobody can say."""

    def __init__(self, cluster_id: Callable[[], Awaitable[str]], nats: Nats) -> None:
        self._ask_cluster_id = cluster_id
        self._nats = nats
        self._cluster_id = ""
        self._is_ours = False

    async def of_uuid(self, token_uuid: str) -> OwnToken | None:
        """Which of the two has this uuid; None for the uuid of a row, or of nothing here."""
        for token in OwnToken:
            if token.value in token_uuid and token_uuid == await self._uuid("gj3su", token):
                return None if await self._has_row(token_uuid) else token
        return None

    async def of(self, token_uuid: str, user_uuid: str) -> OwnToken | None:
        """Which of the two this token is that this user holds; None for any other.

        Nobody's token is judged by what the publishers of another cluster would tell.
        """
        if fault := await self.elsewhere():
            raise Unavailable(fault)
        token = await self.of_uuid(token_uuid)
        if token is None or user_uuid != await self._uuid("tpzed", token):
            return None
        return token

    async def has(self, token_uuid: str) -> bool | None:
        """Whether this cluster has a token of this uuid; None for one that names another."""
        if await self.is_foreign(token_uuid):
            return None
        return await self.of_uuid(token_uuid) is not None or await self._has_row(token_uuid)

    async def is_foreign(self, token_uuid: str) -> bool:
        """Whether the token is another cluster's."""
        return not token_uuid.startswith(f"{await self._cluster()}-")

    async def elsewhere(self) -> str | None:
        """What is wrong if the NATS account is another cluster's."""
        if not self._is_ours:
            owner, cluster = await streams.owner(self._nats), await self._cluster()
            if owner not in (None, cluster):
                return streams.elsewhere(str(owner), cluster)
            self._is_ours = owner == cluster
        return None

    async def _cluster(self) -> str:
        if not self._cluster_id:
            self._cluster_id = await self._ask_cluster_id()
        return self._cluster_id

    async def _uuid(self, infix: str, token: OwnToken) -> str:
        return f"{await self._cluster()}-{infix}-{token.value}"

    async def _has_row(self, token_uuid: str) -> bool:
        answer = await self._nats.request(subjects.OBJECTS_GET, token_uuid.encode())
        return object_messages.decode(answer.headers, answer.data).record is not None
