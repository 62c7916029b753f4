# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a dispatcher sees of one container that is waiting or running.

Pure. The value under the key `<container uuid>` in the bucket ARVADOS_QUEUE, as JSON. A container
that has ended has no value: its key is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.errors import MALFORMED, BadInput

WAITING = ("Queued", "Locked")
STATES = (*WAITING, "Running")

_OPERATION = "KV-Operation"
_TTL = "Nats-TTL"
_KEPT = "1h"
"""How long a deleted key is told; whoever was away for longer lists the keys anew."""

DELETED: Mapping[str, str] = {_OPERATION: "DEL", _TTL: _KEPT}
"""Headers of the message that deletes a key."""


class QueueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One container in Queued, Locked or Running.

    `priority` is text, since it goes beyond 2^53; 0 or less is on hold. Times are UTC, RFC 3339.
    """

    uuid: str
    state: str
    priority: str
    locked_by_uuid: str | None
    lock_count: int
    auth_uuid: str | None
    scheduling_parameters: Any
    runtime_constraints: Any
    created_at: str | None
    started_at: str | None
    modified_at: str | None


_decoder = msgspec.json.Decoder(QueueEntry)


def encode(entry: QueueEntry) -> bytes:
    """The value of a key; the same for equal entries."""
    return msgspec.json.encode(entry)


def decode(headers: Mapping[str, str], payload: bytes) -> QueueEntry | None:
    """The entry in a message of the bucket; None if it deletes the key."""
    if headers.get(_OPERATION):
        return None
    try:
        return _decoder.decode(payload)
    except MALFORMED as error:
        raise BadInput(f"not an entry of the queue: {error}") from error


def subject(uuid: str) -> str:
    """Subject of a key: `$KV.ARVADOS_QUEUE.<container uuid>`."""
    return f"{subjects.QUEUE}.{uuid}"


def key(subject: str) -> str:
    """The container uuid in a subject, stored or republished."""
    return subject.rpartition(".")[2]
