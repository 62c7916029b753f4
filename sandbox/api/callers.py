# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who sends a request: the token's row, its user, its scopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.model.actors import Actor
from sandbox.model.records import Row


@dataclass(frozen=True, slots=True)
class Caller:
    """One valid token and its user.

    `reach` holds the users whose permissions count for this one, with the level at which they do:
    itself (3) and the users it reaches with traverse_owned (facts/permission-rule.md, U_n).
    """

    token_uuid: str
    secret: str | None
    scopes: Sequence[str]
    expires_at: object
    user: Row
    is_root: bool
    container_uuid: str | None
    reach: Mapping[str, int]

    @property
    def user_uuid(self) -> str:
        """The user as whom the token acts."""
        return str(self.user["uuid"])

    @property
    def is_admin(self) -> bool:
        """Whether no permission is asked."""
        return bool(self.user["is_admin"])

    def acting_as(self, level: int) -> list[str]:
        """U_n: the users whose permissions of this level and more count."""
        return [user for user, held in self.reach.items() if held >= level]

    def actor(self) -> Actor:
        """The caller as the model's writes know it."""
        return Actor(
            uuid=self.user_uuid,
            id=self.user["id"],
            is_admin=self.is_admin,
            is_active=bool(self.user["is_active"]),
            token_uuid=self.token_uuid,
            token=self.secret or "",
            scopes=tuple(self.scopes),
            container_uuid=self.container_uuid,
        )

    def allows(self, method: str, path: str) -> bool:
        """Whether the scopes cover a request (facts/arvados.md 2)."""
        wanted = f"{'GET' if method == 'HEAD' else method} {path}"
        return any(
            scope == "all" or scope == wanted or (scope.endswith("/") and wanted.startswith(scope))
            for scope in self.scopes
        )
