# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How the present record of any object is asked for inside ARVADOS.

Pure. `arvados.objects.get` takes a uuid and gives a `Snapshot`, read from the database by the
permission publisher. Whoever answers readers without their token needs it, as `run_messages`.
`arvados.objects.facts` takes a list of uuids and gives the facts of those that exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from arvados_nats.contract.places import Place
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


class PresentFacts(msgspec.Struct, frozen=True):
    """Facts of objects that exist; `rest` exist too, and have to be asked about again. `places`:
    where the groups among the objects are."""

    facts: list[ObjectFacts]
    rest: list[str] = []
    places: list[Place] = []


_decoder = msgspec.json.Decoder(Snapshot)
_facts_decoder = msgspec.json.Decoder(PresentFacts)

_MOST_BYTES = 512 * 1024


def encode(snapshot: Snapshot) -> bytes:
    """The payload of an answer."""
    return msgspec.json.encode(snapshot)


def decode(headers: Mapping[str, str], payload: bytes) -> Snapshot:
    """The answer in a message; Unavailable if it says that nobody can tell."""
    return grants_messages.answer(headers, payload, _decoder, "an object")


def encode_facts(found: Iterable[ObjectFacts], places: Iterable[Place] = ()) -> bytes:
    """The payload of an answer: as many as one message takes, and which others there are."""
    size, fitting, rest = 0, [], []
    for facts in found:
        size += len(msgspec.json.encode(facts))
        if size <= _MOST_BYTES:
            fitting.append(facts)
        else:
            rest.append(facts.uuid)
    return msgspec.json.encode(PresentFacts(fitting, rest, list(places)))


def decode_facts(headers: Mapping[str, str], payload: bytes) -> PresentFacts:
    """The answer in a message; Unavailable if it says that nobody can tell."""
    return grants_messages.answer(headers, payload, _facts_decoder, "facts of objects")
