# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What asyncpg raises, in our own four words (`arvados_nats.errors`).

Part of the edge to PostgreSQL (`primary`, `publishers.postgres.database`); nothing else sees
asyncpg's exceptions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg

from arvados_nats.errors import BadInput, Disagreement, Unavailable, said

NO_POOLER = (
    "postgres_dsn: a transaction pooler stands in front of PostgreSQL, and NOTIFY does not come"
    " through it; give the address of PostgreSQL itself"
)

_WRONG_SETTING = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedObjectError,
    asyncpg.exceptions.ClientConfigurationError,
)
_POOLED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
_NEVER = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
MISSING = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
)
"""What a statement reads is not there, or not granted: it may be one day, after an upgrade."""
DOWN = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""Whatever else can happen to a connection or a statement: try again later."""


@contextlib.contextmanager
def translate() -> Iterator[None]:
    """Turn what asyncpg raises into one of our errors; ours pass through."""
    try:
        yield
    except _WRONG_SETTING as error:
        raise Disagreement(f"postgres_dsn: {said(error)}") from error
    except _POOLED as error:
        raise Disagreement(NO_POOLER) from error
    except _NEVER as error:
        raise BadInput(f"PostgreSQL: {said(error)}") from error
    except DOWN as error:
        raise Unavailable(f"PostgreSQL: {said(error)}") from error
