# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How the present record of any object is asked for inside ARVADOS.

Pure. `arvados.objects.get` takes a uuid and gives a `Snapshot`, read from the database by the
permission publisher. Whoever answers readers without their token needs it, as `runs_wire`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from arvados_nats.permission_client import grants_messages
from arvados_nats.permissions.object_facts import ObjectFacts

Record = dict[str, Any]


class Snapshot(msgspec.Struct, frozen=True):
    """An object as it is now; all None where there is none.

    `record` has the attributes of the API and its values (times are RFC 3339 with nine digits), and
    `container` those of the container that a request points to.
    """

    facts: ObjectFacts | None = None
    record: Record | None = None
    container: Record | None = None


_decoder = msgspec.json.Decoder(Snapshot)


def encode(snapshot: Snapshot) -> bytes:
    """The payload of an answer."""
    return msgspec.json.encode(snapshot)


def decode(headers: Mapping[str, str], payload: bytes) -> Snapshot:
    """The answer in a message; Unavailable if it says that nobody can tell."""
    return grants_messages.answer(headers, payload, _decoder, "an object")
