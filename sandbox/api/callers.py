# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who sends a request: the actor that its token is, and its user's row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig
from sandbox.model.records import Row


@dataclass(frozen=True, slots=True)
class Caller:
    """One valid token and its user.

    `reach` holds the users whose permissions count for this one, with the level at which they do:
    itself (3) and the users it reaches with traverse_owned (docs/facts/permission-rule.md, U_n).
    """

    actor: Actor
    config: ClusterConfig
    user: Row
    reach: Mapping[str, int]

    @property
    def token_uuid(self) -> str:
        """The token's own uuid."""
        return self.actor.token_uuid or ""

    @property
    def user_uuid(self) -> str:
        """The user as whom the token acts."""
        return self.actor.uuid

    @property
    def is_admin(self) -> bool:
        """Whether no permission is asked."""
        return self.actor.is_admin

    def allows(self, method: str, path: str) -> bool:
        """Whether the scopes cover a request (docs/facts/arvados.md 2)."""
        wanted = f"{'GET' if method == 'HEAD' else method} {path}"
        return any(
            scope == "all" or scope == wanted or (scope.endswith("/") and wanted.startswith(scope))
            for scope in self.actor.scopes
        )
