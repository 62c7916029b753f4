# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The messages of every answer of `arvados.api.…`, whoever gives it.

Pure. An answer is any number of parts, then one empty message with `Arvados-End`; or, instead of
all that or in its midst, one message with `Arvados-Error` and a JSON text of what is wrong and what
to do. An empty message with `Arvados-Gap` stands where something is not to be had. Header names are
those of `docs/clients.md`, which clients are written by, and of docs/asyncapi.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable

END = "Arvados-End"
"""Where to go on: a cursor of events, or an offset of a log file."""
MORE = "Arvados-More"
"""On the end: `true` if more can be read at once by asking again from there."""
CURSOR = "Arvados-Cursor"
GAP = "Arvados-Gap"
ERROR = "Arvados-Error"
SEQUENCE = "Nats-Sequence"
"""The same number that the live message of an event carries."""


@dataclass(frozen=True, slots=True)
class Part:
    """One message of an answer."""

    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Busy(Unavailable):
    """Too many requests are under way: wait for an answer before the next one."""


class Failure(msgspec.Struct, frozen=True):
    """What `Arvados-Error` is about. `code` is that of the header; `temporary`: come back later."""

    error: str
    code: str
    temporary: bool


class Whoami(msgspec.Struct, frozen=True):
    """The answer of `arvados.api.whoami`. `account` and `subscribe` are for the connection that
    listens; with `overflow` its `subscriptions` are too many for a login, and `advice` says what
    to do. `inbox_prefix`: that of the connection that asks."""

    user_uuid: str
    token_uuid: str
    account: str
    is_admin: bool
    is_active: bool
    inbox_prefix: str
    subscribe: tuple[str, ...]
    subscriptions: int
    overflow: bool
    advice: str = ""


def failure(error: ArvadosNatsError) -> Part:
    """The message that ends an answer with an error. What is forbidden looks as if missing."""
    match error:
        case Busy():
            found = Failure(str(error), "busy", True)
        case BadInput():
            found = Failure(str(error), "bad_request", False)
        case Refused():
            found = Failure(str(error), "not_readable", False)
        case _:
            found = Failure("this cannot be answered now: try again later", "unavailable", True)
    return Part(msgspec.json.encode(found), {ERROR: found.code})


def code(part: Part) -> str:
    """What an answer came to, from its last message: `ok` or the code of an error."""
    return part.headers.get(ERROR, "ok")
