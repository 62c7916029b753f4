# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Users whom no test knows, made many at a time.

Users see each other, so that each who is made alone adds a row for every other and concerns all
who are connected: half a second of CPU in a site that has seen a hundred tests.
"""

from __future__ import annotations

from sandbox import bulk
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor

_AT_ONCE = 25


class Newcomers:
    """Active users with a token, each handed out once; no log row tells of them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._left: list[Actor] = []

    async def one(self) -> Actor:
        """Somebody new."""
        if not self._left:
            self._left = await bulk.users(self._cluster, _AT_ONCE)
        return self._left.pop()
