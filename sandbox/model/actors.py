# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who acts: a user by one token, as the model's writes know them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.model.config import ClusterConfig


@dataclass(frozen=True, slots=True)
class Actor:
    """A user and the token they act with.

    `token` is the string for an Authorization header; `container_uuid` is set when it is a
    running container's own token.
    """

    uuid: str
    id: int
    is_admin: bool
    is_active: bool
    token_uuid: str | None = None
    token: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ("all",)
    container_uuid: str | None = None


def system(config: ClusterConfig, user_id: int) -> Actor:
    """The system user with SystemRootToken."""
    return Actor(
        config.system_user, user_id, True, True, config.root_token_uuid, config.system_root_token
    )


def anonymous(config: ClusterConfig, user_id: int) -> Actor:
    """Nobody in particular: reads what everybody may read."""
    return Actor(
        config.anonymous_user,
        user_id,
        False,
        False,
        config.anonymous_token_uuid,
        config.anonymous_user_token,
        ("GET /",),
    )
