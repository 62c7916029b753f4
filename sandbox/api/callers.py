# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who sends a request: the token's row, its user, its scopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg


@dataclass(frozen=True, slots=True)
class Caller:
    """One valid token and its user.

    `reads_as` and `manages_as` hold the users whose permissions count for this one: itself and the
    users it reaches with traverse_owned at level 1 and 3 (facts/permission-rule.md, U_n).
    """

    token_uuid: str
    secret: str | None
    scopes: Sequence[str]
    expires_at: object
    user: asyncpg.Record
    is_root: bool
    container_uuid: str | None
    reads_as: Sequence[str]
    manages_as: Sequence[str]

    @property
    def user_uuid(self) -> str:
        """The user as whom the token acts."""
        return str(self.user["uuid"])

    @property
    def is_admin(self) -> bool:
        """Whether no permission is asked."""
        return bool(self.user["is_admin"])

    def allows(self, method: str, path: str) -> bool:
        """Whether the scopes cover a request (facts/arvados.md 2)."""
        wanted = f"{'GET' if method == 'HEAD' else method} {path}"
        return any(
            scope == "all" or scope == wanted or (scope.endswith("/") and wanted.startswith(scope))
            for scope in self.scopes
        )
