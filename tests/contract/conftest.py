# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One stack of all services, whose answers are recorded."""

from __future__ import annotations

from tests.support.worlds.stacks import shared_stack

__all__ = ["shared_stack"]
