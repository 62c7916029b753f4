# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One unit of a protocol among the bytes that came, whatever the protocol. Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What is done about it."""

    TEXT = "text"
    PING = "ping"
    CLOSE = "close"
    OTHER = "other"


class Frame(NamedTuple):
    """Its payload is `data[start:end]`; the next one begins at `after`."""

    kind: Kind
    start: int
    end: int
    after: int
