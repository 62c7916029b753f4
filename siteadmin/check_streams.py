# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether the streams can keep what they are told to: `arvados-nats check streams`.

`examine` is pure: it looks at what JetStream says about each stream (STREAM.INFO) and about the
account (INFO). A stream that may grow beyond the account's limit refuses messages one day, and a
copy that is away is the one that is missing when the next server goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arvados_nats import nats_client, streams
from siteadmin.nats_config import Size

_WITHIN_SECONDS = 10.0
_NAMES = (streams.EVENTS, streams.LOGS, streams.QUEUE, streams.CURSORS)

Info = Mapping[str, Any]


async def check(servers: list[str], seed: str) -> dict[str, list[str]]:
    """What was looked at -> what is wrong with it; logs in as an identity of account ARVADOS."""
    async with nats_client.connect(
        servers, name="arvados-nats check", seed=seed, timeout=_WITHIN_SECONDS
    ) as nats:
        found = {name: await nats.stream_info(name) for name in _NAMES}
        return examine(found, await nats.js_api("INFO"))


def examine(found: Mapping[str, Info | None], account: Info) -> dict[str, list[str]]:
    """The same for what JetStream has answered; None is a stream that does not exist."""
    wrong = {
        name: _stream_faults(info) if info else ["it does not exist yet: do the publishers run?"]
        for name, info in found.items()
    }
    return {**wrong, "storage": _storage_faults([i for i in found.values() if i], account)}


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
