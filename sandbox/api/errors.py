# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Refusals of the API server, worded as the recorded Rails server words them.

Almost every refusal is 422; 403 is for permission, 404 for not readable or unknown, 401 for no
valid token (golden/api.json, description 6 and 7). The request id follows each text in parentheses.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from sandbox.model.refusal import Refusal, raised


def body(refusal: Refusal, request_id: str) -> dict[str, object]:
    """The JSON body of the answer."""
    errors = [f"{message} ({request_id})" for message in refusal.messages]
    return {"errors": errors, "error_token": f"{int(time.time())}+{secrets.token_hex(4)}"}


def argument_error(text: str) -> Refusal:
    """A parameter that cannot be understood."""
    return raised("ArgumentError", text)


def forbidden() -> Refusal:
    """The token is valid but not for this."""
    return Refusal(403, "Forbidden")


@contextmanager
def from_database() -> Iterator[None]:
    """What the database says, as a refusal: 422 for a value it cannot take, 500 while it is away.

    asyncpg finds some wrong values by itself: those errors are a ValueError as well.
    """
    try:
        yield
    except asyncpg.DataError as error:
        raise raised("ActiveRecord::StatementInvalid", str(error)) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        if isinstance(error, ValueError):
            raise raised("ActiveRecord::StatementInvalid", str(error)) from error
        text = f"#<ActiveRecord::ConnectionNotEstablished: {error}>"
        raise Refusal(500, text) from error
