# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Close codes of WebSocket sessions: the band tells a client what to do.

Pure. 4000-4499 is the server's business: come back, with jitter. 4500-4999 is the client's: stop,
the same attempt would fail again (docs/facts/realtime.md 6.5).
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Why the server ends a session."""

    DRAIN = 4000
    MAX_AGE = 4001
    SLOW = 4008
    NO_PONG = 4009
    RESYNC = 4010
    LIMIT = 4429
    BAD_REQUEST = 4500
    TOKEN_INVALID = 4501
    AUTH_TIMEOUT = 4502
    FORBIDDEN = 4503
    UNSUPPORTED = 4504

    @property
    def come_back(self) -> bool:
        """Whether a client should connect again."""
        return self < CloseCode.BAD_REQUEST
