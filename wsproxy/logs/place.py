# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A byte of a container's log: where history and live are joined. Pure."""

from __future__ import annotations

import msgspec


class LogPlace(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Byte `offset` of a log file, in its `epoch`."""

    epoch: int
    offset: int
