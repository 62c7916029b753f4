# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When wsproxy looks through all objects, in a process of its own: the settings are Python's."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import asyncio, gc, weakref

from wsproxy.transport.connections import Connections
from wsproxy.transport.gc_tuning import collect_seldom

class Gone:
    def __init__(self):
        self.itself = self

async def main():
    connections = Connections()
    collect_seldom(connections, look_seconds=0.01)
    gone = Gone()
    died = weakref.ref(gone)
    gc.collect(1)
    gc.collect(1)
    del gone
    events = [[number] for number in range(200_000)]
    await asyncio.sleep(0.1)
    print("kept" if died() else "died")
    for number in range(1000):
        connections.add(number)
        connections.remove(number)
    async with asyncio.timeout(60):
        while died():
            await asyncio.sleep(0.01)
    print("died")

asyncio.run(main())
"""


def test_what_is_old_is_looked_at_when_many_connections_are_gone() -> None:
    """And not because there were many events."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["kept", "died"], done.stderr
