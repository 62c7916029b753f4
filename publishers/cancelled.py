# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Notice a cancellation that was lost on the way.

On Python 3.11 `asyncio.wait_for`, which nats-py waits for answers with, returns the answer and
drops the cancellation when both come in the same moment. A loop that asks NATS again and again
would then never end, and its service never stop; so it looks here once a round.
"""

from __future__ import annotations

import asyncio


def raise_if_cancelled() -> None:
    """CancelledError if somebody has cancelled the current task. Not for clean-up code."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
