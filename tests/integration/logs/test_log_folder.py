# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is listed of a log folder for many panels, by one question of Arvados."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.log_folder import Form
from tests.support.worlds.logs import World
from wsproxy.log_folder.ahead import Ahead
from wsproxy.log_folder.folder import Folder
from wsproxy.logs.hubs import LogHubs
from wsproxy.logs.saved import Access
from wsproxy.services import Services


async def test_what_was_listed_before_the_end_is_not_told_after_it(
    world: World, hubs: LogHubs, access: Access
) -> None:
    """Workbench asks once more when it hears that a process is over, and never again: what another
    tab asked for a moment before may lack the last lines."""
    job = await world.job()
    async with arvados_client.connect(world.api.url) as arvados:
        services = cast(Services, SimpleNamespace(logs=hubs, arvados=arvados))
        folder = Folder(services, Ahead(), job.request_uuid, job.uuid)
        try:
            job.write("stdout.txt", b"first\n")
            assert (await folder.listing(access, Form())).files["stdout.txt"].size == 6
            job.write("stdout.txt", b"last\n")
            hubs.open(job.uuid, watching=False).record.changed()
            assert (await folder.listing(access, Form())).files["stdout.txt"].size == 11
        finally:
            hubs.close(job.uuid, watching=False)
            folder.close()
