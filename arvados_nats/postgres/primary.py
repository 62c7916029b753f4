# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A connection straight to the PostgreSQL that Arvados writes to, or the reason why it is none.

LISTEN and advisory locks need one. The publishers rely on it, and `arvados-nats check connections`
looks for the same faults by the same means. Callers translate what asyncpg raises
(`errors.translate`).

A machine that loses its power, and a firewall that forgets a connection, say nothing to the other
end. So both ends ask each other all the time, and a session that holds a lock and has not been
heard of for `SILENT_SESSION` seconds is ended by PostgreSQL (from version 14 on, even where
something in between answers in the name of the dead).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg

from arvados_nats.errors import ConfigError, Disagreement, said
from arvados_nats.postgres import dsn as postgres_dsn
from arvados_nats.postgres.dsn import SystemTrust
from arvados_nats.postgres.errors import DOWN, NO_POOLER

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
STATEMENT_TIMEOUT = 60.0
SILENT_SESSION = 15.0
"""Seconds after which PostgreSQL ends a session that asks nothing; ours asks more often."""
_ONE_OF_SEVERAL = 3.0
"""Seconds for one host to answer, where another one can be asked instead."""
_SAME_BACKEND_TRIES = 5

_NO_STANDBY = "postgres_dsn: the server is a hot standby, where nobody can LISTEN; give the primary"

_KEEPALIVES = {"idle": 10, "interval": 5, "count": 3}
_UNACKNOWLEDGED_MS = 20_000
_EVERYWHERE = {
    **{f"tcp_keepalives_{name}": str(value) for name, value in _KEEPALIVES.items()},
    "tcp_user_timeout": str(_UNACKNOWLEDGED_MS),
    "client_connection_check_interval": "5000",
    "idle_in_transaction_session_timeout": "60000",
}
_STAYING = {"idle_session_timeout": str(int(SILENT_SESSION * 1000))}
_SET_WHAT_IT_KNOWS = """
    SELECT set_config(name, value, false)
    FROM unnest($1::text[], $2::text[]) AS wanted (name, value)
    WHERE current_setting(name, true) IS NOT NULL
"""
"""Older servers lack some of these; so does what stands in for PostgreSQL."""


class Hosts:
    """The hosts that a connection string names; the one that answered last is asked first.

    Given a function, it is asked for each connection: passwords change.
    """

    def __init__(self, dsn: str | Callable[[], str]) -> None:
        self._ask = dsn if callable(dsn) else lambda: dsn
        self._dsn = self._ask()
        self._urls = postgres_dsn.one_by_one(postgres_dsn.to_url(self._dsn))

    def _follow(self) -> None:
        if (now := self._ask()) == self._dsn:
            return
        self._dsn = now
        try:
            self._urls = postgres_dsn.one_by_one(postgres_dsn.to_url(now))
        except ConfigError as error:
            logger.warning(
                "the new connection string is none; the former one stays",
                extra={"action": "postgres.dsn", "error": str(error)},
            )

    async def connect(self, *, stays: bool = False, **options: Any) -> asyncpg.Connection:
        """One connection, to the first that gives one; `stays`: see `SILENT_SESSION`.

        Each has a time of its own: a machine that is gone drops what is sent to it.
        """
        self._follow()
        failure: BaseException | None = None
        for url in tuple(self._urls):
            try:
                connection = await self._to(url, options)
                await _notice_the_dead(connection, stays=stays)
            except DOWN as error:
                logger.info(
                    "PostgreSQL host does not take us",
                    extra={"action": "postgres.host", "error": said(error)},
                )
                failure = error
            else:
                self._urls.sort(key=lambda other: other != url)
                return connection
        assert failure is not None
        raise failure

    async def _to(self, url: str, options: dict[str, Any]) -> asyncpg.Connection:
        if trust := postgres_dsn.system_trust(url, _has_own_authorities):
            options = {**options, "ssl": _trusting_the_system(trust)}
        connection: asyncpg.Connection = await asyncpg.connect(
            url,
            timeout=_ONE_OF_SEVERAL if len(self._urls) > 1 else CONNECT_TIMEOUT,
            command_timeout=STATEMENT_TIMEOUT,
            server_settings={"application_name": "arvados-nats"},
            **options,
        )
        return connection


def _has_own_authorities() -> bool:
    if "PGSSLROOTCERT" in os.environ:
        return True
    try:
        return (Path.home() / ".postgresql" / "root.crt").exists()
    except (RuntimeError, OSError):
        return False


def _trusting_the_system(trust: SystemTrust) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = trust.host_name
    if trust.certificate:
        context.load_cert_chain(trust.certificate, trust.key)
    return context


async def _notice_the_dead(connection: asyncpg.Connection, *, stays: bool) -> None:
    wanted = {**_EVERYWHERE, **(_STAYING if stays else {})}
    own = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    if own is not None and own.family != socket.AF_UNIX:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", _KEEPALIVES["idle"]),
            ("TCP_KEEPINTVL", _KEEPALIVES["interval"]),
            ("TCP_KEEPCNT", _KEEPALIVES["count"]),
            ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS),
        ):
            if number := getattr(socket, option, None):
                own.setsockopt(socket.IPPROTO_TCP, number, value)
    try:
        await connection.fetch(
            _SET_WHAT_IT_KNOWS, [*wanted], [*wanted.values()], timeout=CONNECT_TIMEOUT
        )
    except asyncpg.PostgresError as error:
        logger.warning(
            "PostgreSQL does not let us say when it should give us up",
            extra={"action": "postgres.settings", "error": said(error)},
        )
    except BaseException:
        connection.terminate()
        raise


async def close(connection: asyncpg.Connection) -> None:
    """Within a second, whatever the other side does."""
    with contextlib.suppress(*DOWN):
        await connection.close(timeout=1)


async def require(connection: asyncpg.Connection, hosts: Hosts) -> None:
    """ConfigError unless the connection leads to the primary, and past any pooler by transaction.

    A pooler answers with a process id of its own; one that pools by transaction serves two of its
    clients, each with an open connection, from one process of PostgreSQL.
    """
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise Disagreement(_NO_STANDBY)
    ask = "SELECT pg_backend_pid()"
    if await connection.fetchval(ask) == connection.get_server_pid():
        return
    other = await hosts.connect()
    try:
        for _ in range(_SAME_BACKEND_TRIES):
            if await connection.fetchval(ask) == await other.fetchval(ask):
                raise Disagreement(NO_POOLER)
    finally:
        await close(other)
