# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One site for all hostile tests, one stack of all services, and users for each."""

from __future__ import annotations

from tests.support.worlds.shared_site import alice, bob, cluster, left_running, newcomers, site
from tests.support.worlds.stacks import shared_stack

__all__ = ["alice", "bob", "cluster", "left_running", "newcomers", "shared_stack", "site"]
