# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How the present state of a container or container request is asked for inside ARVADOS.

Pure. `arvados.runs.get` takes a uuid and gives a `Run`, read from the database by the permission
publisher. Whoever answers readers without their token needs it: the last event of a container does
not tell which requests point to it now, and so not who may read its log.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from arvados_nats.permission_client import grants_messages
from arvados_nats.permissions.object_facts import ObjectFacts


class Run(msgspec.Struct, frozen=True):
    """A container, or a request and the container that it points to now.

    `facts` are those of the uuid asked about, None where there is no such object. `container_uuid`
    and what follows are the container's; `attempt` counts a request's containers from 1.
    `finished_at` is UTC, RFC 3339.
    """

    facts: ObjectFacts | None = None
    container_uuid: str | None = None
    attempt: int | None = None
    state: str | None = None
    exit_code: int | None = None
    log: str | None = None
    finished_at: str | None = None


_decoder = msgspec.json.Decoder(Run)


def encode(run: Run) -> bytes:
    """The payload of an answer."""
    return msgspec.json.encode(run)


def decode(headers: Mapping[str, str], payload: bytes) -> Run:
    """The answer in a message; Unavailable if it says that nobody can tell."""
    return grants_messages.answer(headers, payload, _decoder, "a container")
