# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A task of one connection that fails ends that connection, loudly; never in silence.

A mistake of ours must not leave a client waiting for ever, nor touch anybody else's connection.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from wsproxy import metrics
from wsproxy.close_codes import CloseCode
from wsproxy.outlet import Outlet

logger = logging.getLogger(__name__)


def end_with(outlet: Outlet, task: asyncio.Task[Any]) -> None:
    """Close the connection if `task` fails; the client is to come back and resume."""

    def done(task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        logger.error("connection failed", extra={"action": "connection.failed"}, exc_info=error)
        metrics.cut_sockets.labels("failure").inc()
        outlet.close(CloseCode.RESYNC, "the server has made a mistake")

    task.add_done_callback(done)
