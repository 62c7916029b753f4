# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everything together, on servers that may be killed."""

from __future__ import annotations

import pytest

from sandbox.stack import Stack


@pytest.fixture(scope="module")
def stack(own_stack: Stack) -> Stack:
    """Publishers, callout service and proxy of this module alone."""
    return own_stack
