# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A container whose log is in Arvados alone, since it ended before anybody published logs."""

from __future__ import annotations

from sandbox.logs.log_files import NumberedLines
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack


async def ended(stack: Stack, owner: Actor, source: NumberedLines) -> Record:
    """A request of `owner` whose container has written `source` to stdout.txt, hours ago."""
    sandbox = stack.sandbox
    await stack.services["publishers"].stop()
    request = await sandbox.cluster.container_request("long ago", owner=owner)
    container = await sandbox.cluster.run(request)
    sandbox.cluster.logs.put(container.uuid, "stdout.txt", source)
    await sandbox.cluster.finish(container)
    await sandbox.backend.rows(
        "UPDATE containers SET finished_at = finished_at - interval '3 h' WHERE uuid = $1",
        container.uuid,
    )
    await stack.services["publishers"].start()
    return request
