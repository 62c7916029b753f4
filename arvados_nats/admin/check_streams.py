# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether the streams can keep what they are told to: `arvados-nats check streams`.

`examine` is pure: it looks at what JetStream says about each stream (STREAM.INFO) and about the
account (INFO), and at the disk of a server if it is on this machine. A stream that may grow beyond
the account's limit or the disk refuses messages one day, and a copy that is away is the one that is
missing when the next server goes.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arvados_nats.contract import streams, subjects
from arvados_nats.errors import ArvadosNatsError, said
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.nats.conf_text import GIB, Size
from arvados_nats.nats.passed_over import read

_WITHIN_SECONDS = 10.0
_LEAST_FREE = 0.05
_NAMES = (streams.EVENTS, streams.LOGS, streams.QUEUE, streams.CURSORS)

Info = Mapping[str, Any]


async def check(
    servers: list[str], seed: str, store: Path | None = None, *, ca_file: str | None = None
) -> dict[str, list[str]]:
    """What was looked at -> what is wrong with it; logs in as an identity of account ARVADOS.

    `store` is the folder of a NATS server that runs on this machine.
    """
    async with nats_client.connect(
        servers, name="arvados-nats check", seed=seed, timeout=_WITHIN_SECONDS, ca_file=ca_file
    ) as nats:
        found = {name: await nats.stream_info(name) for name in _NAMES}
        if system_logs := await nats.stream_info(streams.SYSTEM_LOGS):
            found[streams.SYSTEM_LOGS] = system_logs
        disk = shutil.disk_usage(store) if store else None
        wrong = examine(found, await nats.js_api("INFO"), (disk.free, disk.total) if disk else None)
        if found[streams.CURSORS]:
            wrong["storage"] += await _not_stored(nats)
        return wrong


async def _not_stored(nats: Nats) -> list[str]:
    """What is wrong with storing a message: a server can be there and not write any more."""
    try:
        stored = await nats.publish_stored(subjects.cursor("check", "storage"), b"")
        async with asyncio.timeout(_WITHIN_SECONDS):
            await stored
    except (ArvadosNatsError, TimeoutError) as error:
        return [
            f"a message is not stored ({said(error)}): a server whose disk was full is restarted"
        ]
    return []


async def passed_over(servers: list[str], seed: str, *, ca_file: str | None = None) -> list[str]:
    """Messages that the live publisher could not show and went past, the last few of each stream.

    A sender's fault, not the site's: what they are tells whose.
    """
    async with nats_client.connect(
        servers, name="arvados-nats check", seed=seed, timeout=_WITHIN_SECONDS, ca_file=ca_file
    ) as nats:
        told = []
        for stream in (streams.EVENTS, streams.LOGS):
            cursor = await nats.last(streams.CURSORS, subjects.cursor("live", stream))
            if cursor and (found := read(cursor.headers)).count:
                told.append(f"{stream}: {found.count} messages passed over, the last of them")
                told += [f"  {passed}" for passed in found.last]
        return told


def examine(
    found: Mapping[str, Info | None], account: Info, disk: tuple[int, int] | None = None
) -> dict[str, list[str]]:
    """The same for what JetStream has answered; None is a stream that does not exist.

    `disk` is how many bytes more fit on the disk of a server, and how many it has.
    """
    wrong = {
        name: _stream_faults(info) if info else ["it does not exist yet: do the publishers run?"]
        for name, info in found.items()
    }
    there = [info for info in found.values() if info]
    wrong["storage"] = _storage_faults(there, account)
    if disk:
        wrong["disk"] = [*_disk_faults(there, disk[0]), *_full(*disk)]
    return wrong


def _stream_faults(info: Info) -> list[str]:
    cluster = info.get("cluster") or {}
    clustered = "name" in cluster
    faults = []
    if clustered and not cluster.get("leader"):
        faults.append("it has no leader: most of its servers are away, nothing is stored")
    if clustered and info["config"]["num_replicas"] == 1:
        faults.append("it is kept on one server of a cluster: set its replicas to 3")
    for copy in cluster.get("replicas") or ():
        if copy.get("offline"):
            faults.append(f"its copy on {copy['name']} is away")
        elif not copy.get("current"):
            faults.append(f"its copy on {copy['name']} is {copy.get('lag', 0)} messages behind")
    return faults


def _storage_faults(found: list[Info], account: Info) -> list[str]:
    limit = account["limits"]["max_storage"]
    if limit < 0:
        return []
    wanted = sum(
        max(0, info["config"]["max_bytes"]) * info["config"]["num_replicas"] for info in found
    )
    if wanted <= limit:
        return []
    return [
        f"the streams may grow to {Size(wanted)} with their copies, and the account may keep"
        f" {Size(limit)}: lower max_bytes or raise max_file of account ARVADOS"
    ]


def _disk_faults(found: list[Info], free: int) -> list[str]:
    """A server has at most one copy of each stream."""
    wanted = sum(max(0, info["config"]["max_bytes"]) for info in found)
    room = free + sum(info["state"]["bytes"] for info in found)
    if wanted <= room:
        return []
    return [
        f"the streams may grow to {wanted / GIB:.1f} GB, and have room for {room / GIB:.1f} GB:"
        " lower their max_bytes or give NATS a larger disk"
    ]


def _full(free: int, total: int) -> list[str]:
    """Whoever else writes there: a server that cannot write stops until it is restarted."""
    if free >= _LEAST_FREE * total:
        return []
    return [f"{1 - free / total:.0%} of it are in use: make room, or give NATS a disk of its own"]
