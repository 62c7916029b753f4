# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One site for all hostile tests, and users for each."""

from __future__ import annotations

from tests.support.worlds.shared_site import alice, bob, cluster, left_running, newcomers

__all__ = ["alice", "bob", "cluster", "left_running", "newcomers"]
