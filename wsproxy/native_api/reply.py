# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How an answer to a native client is made: from what, within which bounds.

Pure. What its messages are is in `contract.answers`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec

from arvados_nats.contract.answers import Part
from arvados_nats.errors import MALFORMED, BadInput, Refused
from arvados_nats.permissions.judge import Judge
from arvados_nats.protocol_v1.messages import NOT_READABLE

MAX_BYTES = 4 * 1024 * 1024
"""Of one answer: far below what a client library lets wait before it drops messages."""
DEFAULT_BYTES = 1024 * 1024

GetJudge = Callable[[], Awaitable[Judge]]
"""Asks for them anew: what was stored before is judged by grants that are no older."""
Answer = Callable[[bytes, GetJudge], AsyncIterator[Part]]
"""From the payload of a request to the parts of the answer. Raises one of `errors`."""


_T = TypeVar("_T", bound=msgspec.Struct)


def request(payload: bytes, kind: type[_T], example: str) -> _T:
    """The request in a payload; BadInput says what is wrong with it and shows one that is right."""
    try:
        return msgspec.json.decode(payload or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{error}; send JSON like {example}") from error
    except MALFORMED as error:
        raise BadInput(f"the request is no JSON; send JSON like {example}") from error


def flag(value: bool) -> str:
    """A header's yes or no."""
    return "true" if value else "false"


def not_readable() -> Refused:
    """Forbidden and missing look alike."""
    return Refused(NOT_READABLE)
