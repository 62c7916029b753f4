# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The messages of an answer to a native client, and who it is for.

Pure. An answer is any number of parts, then one empty message with `Arvados-End`; or, instead of
all that or in its midst, one message with `Arvados-Error` and a JSON text of what is wrong and what
to do. An empty message with `Arvados-Gap` stands where something is not to be had. Header names are
those of `docs/clients.md`, which clients are written by.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from arvados_nats.contract import subjects
from arvados_nats.errors import MALFORMED, ArvadosNatsError, BadInput, Refused, Unavailable
from arvados_nats.permissions.judge import Judge
from arvados_nats.protocol_v1.messages import NOT_READABLE

END = subjects.ANSWER_END
"""Where to go on: a cursor of events, or an offset of a log file."""
MORE = "Arvados-More"
"""On the end: `true` if more can be read at once by asking again from there."""
CURSOR = "Arvados-Cursor"
GAP = "Arvados-Gap"
ERROR = subjects.ANSWER_ERROR
SEQUENCE = "Nats-Sequence"
"""The same number that the live message of an event carries."""

MAX_BYTES = 4 * 1024 * 1024
"""Of one answer: far below what a client library lets wait before it drops messages."""
DEFAULT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One message of an answer."""

    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


GetJudge = Callable[[], Awaitable[Judge]]
"""Asks for them anew: what was stored before is judged by grants that are no older."""
Answer = Callable[[bytes, GetJudge], AsyncIterator[Part]]
"""From the payload of a request to the parts of the answer. Raises one of `errors`."""


_T = TypeVar("_T", bound=msgspec.Struct)


class Busy(Unavailable):
    """Too many requests are under way: wait for an answer before the next one."""


class _Failure(msgspec.Struct, frozen=True):
    error: str
    code: str
    temporary: bool


def failure(error: ArvadosNatsError) -> Part:
    """The message that ends an answer with an error. What is forbidden looks as if missing."""
    match error:
        case Busy():
            found = _Failure(str(error), "busy", True)
        case Unavailable():
            found = _Failure("this cannot be answered now: try again later", "unavailable", True)
        case Refused():
            found = _Failure(str(error) or NOT_READABLE, "not_readable", False)
        case _:
            found = _Failure(str(error), "bad_request", False)
    return Part(msgspec.json.encode(found), {ERROR: found.code})


def code(part: Part) -> str:
    """What an answer came to, from its last message: `ok` or the code of an error."""
    return part.headers.get(ERROR, "ok")


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
