# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Ask the permission publisher where groups are now."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.contract.places import Place
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import grants_messages

_AT_ONCE = 500
_decoder = msgspec.json.Decoder(tuple[Place, ...])


async def of(nats: Nats, groups: Collection[str]) -> tuple[Place, ...]:
    """A place for each of these groups, whether or not it exists. Unavailable if nobody can say."""
    asked = sorted(groups)
    found: tuple[Place, ...] = ()
    for start in range(0, len(asked), _AT_ONCE):
        question = msgspec.json.encode(asked[start : start + _AT_ONCE])
        answer = await nats.request(subjects.PLACES_GET, question)
        found += grants_messages.answer(answer.headers, answer.data, _decoder, "groups")
    return found
