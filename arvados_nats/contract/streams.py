# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The JetStream streams of the facility, as the JSON that the server itself understands.

Pure but for `ensure`. The configuration is sent raw, since nats-py drops fields it does not know,
and with `Nats-Required-Api-Level`, so that an old server refuses instead of ignoring a field
(docs/facts/nats-callout.md 6, 9.8). Each stream republishes what it has stored below
`arvados.stored`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from arvados_nats.contract import log_chunks, subjects
from arvados_nats.errors import Disagreement

EVENTS = "ARVADOS_EVENTS"
LOGS = "ARVADOS_LOGS"
SYSTEM_LOGS = "ARVADOS_SYSLOG"
CURSORS = "ARVADOS_CURSORS"
QUEUE = "KV_ARVADOS_QUEUE"
"""The stream behind the key-value bucket ARVADOS_QUEUE."""
_CLUSTER = "arvados-cluster"
"""In the metadata of CURSORS: whose account it is."""

MIN_SERVER_VERSION = (2, 14, 0)
DUPLICATE_WINDOW = timedelta(minutes=2)

_NANOSECONDS = 1_000_000_000
_MIB = 1024 * 1024
MAX_EVENT = _MIB
"""Bytes of an event with its headers, over `events.MAX_EVENT_BYTES`."""
MAX_SYSTEM_RECORD = 2 * _MIB + 4 * 1024
"""Bytes of a record of a system log with its headers."""
MAX_QUEUE_ENTRY = 256 * 1024
_MAX_CURSOR = 4 * 1024
_QUEUE_BYTES = 512 * _MIB
"""Over 100,000 containers; a bucket that is full refuses, and never drops the oldest."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How much a stream keeps, and on how many servers."""

    max_age: timedelta
    max_bytes: int
    replicas: int = 1


DEFAULT_EVENT_LIMITS = StreamLimits(max_age=timedelta(hours=336), max_bytes=2048 * _MIB)
DEFAULT_LOG_LIMITS = StreamLimits(max_age=timedelta(hours=336), max_bytes=8192 * _MIB)

DEFAULT_SYSTEM_LOG_LIMITS = StreamLimits(max_age=timedelta(hours=336), max_bytes=1024 * _MIB)


def _stream(
    name: str, subject: str, tokens: int, limits: StreamLimits, max_message: int
) -> dict[str, Any]:
    """A stream of what has `tokens` tokens below `subject`, and is no larger than `max_message`."""
    return {
        "name": name,
        "subjects": [subject + tokens * ".*"],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": int(limits.max_age.total_seconds() * _NANOSECONDS),
        "max_bytes": limits.max_bytes,
        "max_msgs": -1,
        "max_msg_size": max_message,
        "max_consumers": -1,
        "num_replicas": limits.replicas,
        "duplicate_window": int(DUPLICATE_WINDOW.total_seconds() * _NANOSECONDS),
        "allow_direct": True,
        "republish": {"src": f"{subject}.>", "dest": subjects.stored(f"{subject}.>")},
    }


def event_stream(limits: StreamLimits = DEFAULT_EVENT_LIMITS) -> dict[str, Any]:
    """Configuration of ARVADOS_EVENTS: one message a change of one object."""
    return _stream(EVENTS, subjects.EVENTS, 3, limits, MAX_EVENT)


def log_stream(limits: StreamLimits = DEFAULT_LOG_LIMITS) -> dict[str, Any]:
    """Configuration of ARVADOS_LOGS: runs of bytes of container log files."""
    return _stream(LOGS, subjects.LOGS, 2, limits, log_chunks.MAX_MESSAGE)


def system_log_stream(limits: StreamLimits = DEFAULT_SYSTEM_LOG_LIMITS) -> dict[str, Any]:
    """Configuration of ARVADOS_SYSLOG: records of the system logs of machines."""
    return _stream(SYSTEM_LOGS, subjects.SYSTEM_LOGS, 2, limits, MAX_SYSTEM_RECORD)


def cursor_stream(replicas: int = 1, cluster: str | None = None) -> dict[str, Any]:
    """Configuration of ARVADOS_CURSORS: how far each of our own readers has come, and of which
    cluster they are."""
    return {
        **({"metadata": {_CLUSTER: cluster}} if cluster else {}),
        "name": CURSORS,
        "subjects": [f"{subjects.CURSORS}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_bytes": _MIB,
        "max_msg_size": _MAX_CURSOR,
        "max_msgs_per_subject": 1,
        "num_replicas": replicas,
        "allow_direct": True,
    }


def require_version(version: Any) -> None:
    """ConfigError unless the server is new enough for what the streams and permissions use."""
    text = str(version)
    found = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
    if found < MIN_SERVER_VERSION:
        wanted = ".".join(map(str, MIN_SERVER_VERSION))
        raise Disagreement(f"nats-server {text} is too old: upgrade it to {wanted} or newer")


def queue_stream(replicas: int = 1) -> dict[str, Any]:
    """Configuration of the bucket ARVADOS_QUEUE: the last value of each key, and no history.

    As clients make a bucket themselves, so that theirs work on it. Deletions expire
    (`queue_entries`), since every container that ever ran would leave one.
    """
    return {
        "name": QUEUE,
        "subjects": [f"{subjects.QUEUE}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": _QUEUE_BYTES,
        "max_msg_size": MAX_QUEUE_ENTRY,
        "max_msgs_per_subject": 1,
        "num_replicas": replicas,
        "duplicate_window": int(DUPLICATE_WINDOW.total_seconds() * _NANOSECONDS),
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "deny_delete": True,
        "republish": {"src": f"{subjects.QUEUE}.>", "dest": f"{subjects.STORED_QUEUE}.>"},
    }


class JetStreamApi(Protocol):
    """What `ensure` needs of a NATS connection."""

    async def stream_config(self, name: str) -> dict[str, Any] | None: ...

    async def js_api(
        self, name: str, body: Any = None, *, api_level: int | None = None
    ) -> dict[str, Any]: ...


async def ensure(nats: JetStreamApi, config: dict[str, Any]) -> None:
    """Create the stream, or bring the fields we set to our values; others stay as they are.

    Disagreement if the stream is another cluster's.
    """
    name = config["name"]
    present = await nats.stream_config(name)
    if present is None:
        await nats.js_api(f"STREAM.CREATE.{name}", config, api_level=1)
        return
    if metadata := config.get("metadata"):
        held = present.get("metadata") or {}
        if held.get(_CLUSTER, cluster := metadata[_CLUSTER]) != cluster:
            raise Disagreement(elsewhere(held[_CLUSTER], cluster))
        config = {**config, "metadata": {**held, **metadata}}
    if any(present.get(key) != value for key, value in config.items()):
        await nats.js_api(f"STREAM.UPDATE.{name}", {**present, **config}, api_level=1)


def elsewhere(owner: str, cluster: str) -> str:
    """What is wrong where two clusters share an account: each would take the other's users,
    containers and rows for its own."""
    return (
        f"the streams in this NATS account are those of cluster {owner}, and this is {cluster}:"
        " each cluster has NATS servers, or accounts, of its own"
    )


class StreamInfo(Protocol):
    """What `created` and `owner` need of a NATS connection."""

    async def stream_info(self, name: str) -> dict[str, Any] | None: ...


async def created(nats: StreamInfo, name: str) -> str | None:
    """When the stream was made, which tells one life of it from the next; None: it is not there.

    Sequences of different lives mean nothing to each other.
    """
    info = await nats.stream_info(name)
    return str(info["created"]) if info else None


async def owner(nats: StreamInfo) -> str | None:
    """The cluster whose account this is; None: no publisher has said so yet."""
    info = await nats.stream_info(CURSORS)
    found = (info["config"].get("metadata") or {}).get(_CLUSTER) if info else None
    return str(found) if found else None
