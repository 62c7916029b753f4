# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How values of PostgreSQL that a user may choose are read: none of them may fail an answer.

Part of the edge `publishers.postgres.database`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from arvados_nats.errors import MALFORMED

_EPOCH = datetime(2000, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


async def install(connection: asyncpg.Connection) -> None:
    """Let a connection read these types by the functions below."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=_json)
    await connection.set_type_codec(
        "timestamp",
        schema="pg_catalog",
        encoder=_from_datetime,
        decoder=_to_datetime,
        format="tuple",
    )


def _json(text: str) -> Any:
    """None for what PostgreSQL takes and we cannot: a number of thousands of digits."""
    try:
        return msgspec.json.decode(text)
    except MALFORMED:
        return None


def _from_datetime(moment: datetime) -> tuple[int]:
    return ((moment - _EPOCH) // _MICROSECOND,)


def _to_datetime(microseconds: tuple[int]) -> datetime:
    """The nearest time that Python has: a user may choose the year 20000, and asyncpg's own codec
    fails on it, with the whole answer."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds[0])
    except OverflowError:
        return datetime.max if microseconds[0] > 0 else datetime.min
