# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The settings of an Arvados cluster on which its writes depend, with Arvados' own defaults."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Named after lib/config/config.default.yml; the defaults are those of the file."""

    cluster_id: str = "zzzzz"
    release: str = "3.2"
    """Of Arvados itself: one of `sandbox.ages.AGES`."""
    system_root_token: str = "sandboxsystemroottokensandboxsystemroottoken"
    anonymous_user_token: str = "sandboxanonymoustokensandboxanonymoustoken00"
    activated_users_are_visible_to_others: bool = True
    role_groups_visible_to_all: bool = True
    new_users_are_active: bool = False
    can_create_role_groups: bool = True
    collection_versioning: bool = True
    preserve_version_if_idle: timedelta = timedelta(seconds=-1)
    default_trash_lifetime: timedelta = timedelta(days=14)
    blob_signing_ttl: timedelta = timedelta(days=14)
    max_retry_attempts: int = 3
    max_dispatch_attempts: int = 10
    audit_logs: bool = True
    workbench_url: str = ""

    @property
    def has_refreshes_at(self) -> bool:
        """Whether tokens have the column; before 3.1 `expires_at` serves for it."""
        return self.release >= "3.1"

    def uuid(self, infix: str, tail: str) -> str:
        """A uuid of this cluster."""
        return f"{self.cluster_id}-{infix}-{tail}"

    @property
    def system_user(self) -> str:
        """Owner of what belongs to the cluster itself: the user of SystemRootToken."""
        return self.uuid("tpzed", "000000000000000")

    @property
    def anonymous_user(self) -> str:
        """The user of the anonymous token; never active."""
        return self.uuid("tpzed", "anonymouspublic")

    @property
    def system_group(self) -> str:
        """Role that may manage every user."""
        return self.uuid("j7d0g", "000000000000000")

    @property
    def all_users(self) -> str:
        """Role of every user who has been set up."""
        return self.uuid("j7d0g", "fffffffffffffff")

    @property
    def anonymous_group(self) -> str:
        """Role that everybody reads through."""
        return self.uuid("j7d0g", "anonymouspublic")

    @property
    def public_favorites(self) -> str:
        """The project of public favorites."""
        return self.uuid("j7d0g", "publicfavorites")

    @property
    def root_token_uuid(self) -> str:
        """Uuid that stands for SystemRootToken, which has no row."""
        return self.uuid("gj3su", "000000000000000")

    @property
    def anonymous_token_uuid(self) -> str:
        """Uuid that stands for the anonymous token, which has no row."""
        return self.uuid("gj3su", "anonymouspublic")
