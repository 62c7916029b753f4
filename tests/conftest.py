# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Real servers for every test, on loopback and free ports.

One PostgreSQL and one NATS server live as long as the test run (per worker); a test that needs
untouched state asks for `database`, a clone of its own, or `fresh_nats`, a server of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import hypothesis
import pytest

from arvados_nats.service import keys
from sandbox import sandbox as whole_sandbox
from sandbox.cluster import Cluster, open_cluster
from sandbox.sandbox import Sandbox
from sandbox.servers import backends
from sandbox.servers import nats_server as nats_sandbox
from sandbox.servers import postgres as postgres_sandbox
from tests.support.worlds.stacks import container, nats, own_stack, stack

__all__ = ["container", "nats", "own_stack", "stack"]

# Where nothing compiled is kept, each of some 300 processes would compile all of ours by itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell lets what it starts in the background ignore Ctrl-C, and what we start would do so, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure, and CI fails for what was changed, not for what was drawn.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=int(os.environ.get("ARVADOS_NATS_FUZZ_EXAMPLES", "50")),
)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--backend` says where the servers run; `--twice` finds tests that cannot be run again."""
    choices = [str(backend) for backend in backends.Backend]
    parser.addoption("--backend", choices=choices, default="auto", help="where the servers run")
    parser.addoption("--twice", action="store_true", help="run each test twice in the same world")


@pytest.fixture
def attempt(request: pytest.FixtureRequest) -> int:
    """Which run of a test this is, with `--twice`."""
    return int(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With `--twice`, each test once more in the same fixtures, as CI does with a failed one."""
    if metafunc.config.getoption("--twice"):
        metafunc.fixturenames.append("attempt")
        metafunc.parametrize("attempt", (1, 2), indirect=True)


_LONGEST_FIRST = ("ages", "clients", "flows", "browser", "chart", "hostile", "v0", "v1", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker has one left when the others are done."""
    here = Path(__file__).parent
    ranks = {folder: rank for rank, folder in enumerate((*_LONGEST_FIRST, "integration", "unit"))}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(here).parts[0], 0))


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> backends.Backend:
    """Where the servers of this test run are: processes or containers."""
    return backends.choose(
        backends.Backend(request.config.getoption("--backend")),
        programs=backends.programs_are_there,
        engine=backends.engine_answers,
    )


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recorded answers of a real Arvados."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def keys_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nkeys of all identities; read one with `keys.load(keys_folder, "publisher")`."""
    folder = tmp_path_factory.mktemp("keys")
    keys.ensure(folder)
    return folder


@pytest.fixture(scope="session")
async def postgres_server(
    backend: backends.Backend,
) -> AsyncIterator[postgres_sandbox.PostgresServer]:
    """The PostgreSQL server of this test run; do not stop it, use one of your own for that."""
    async with backends.run_postgres(backend) as server:
        yield server


@pytest.fixture
async def database(
    postgres_server: postgres_sandbox.PostgresServer,
) -> AsyncIterator[postgres_sandbox.Database]:
    """A database of this test alone: all tables of Arvados, no rows."""
    clone = await postgres_server.clone()
    yield clone
    await postgres_server.drop(clone)


@pytest.fixture
async def cluster(database: postgres_sandbox.Database) -> AsyncIterator[Cluster]:
    """A pretend Arvados cluster of this test alone, with what every cluster has."""
    async with open_cluster(database.dsn) as cluster:
        yield cluster


@pytest.fixture(scope="session")
async def nats_server(
    backend: backends.Backend, keys_folder: Path
) -> AsyncIterator[nats_sandbox.NatsServer]:
    """The NATS server of this test run; streams and subjects are shared with other tests."""
    async with backends.run_nats(backend, keys_folder, websocket=True) as server:
        yield server


@pytest.fixture
async def fresh_nats(
    backend: backends.Backend, keys_folder: Path
) -> AsyncIterator[nats_sandbox.NatsServer]:
    """A NATS server of this test alone, which may be killed and restarted; starts in 40 ms."""
    async with backends.run_nats(backend, keys_folder, websocket=True) as server:
        yield server


@pytest.fixture(scope="module")
async def sandbox(
    backend: backends.Backend,
    postgres_server: postgres_sandbox.PostgresServer,
    keys_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Sandbox]:
    """A pretend cluster of this module alone: database, NATS, API over HTTP and TLS."""
    certificates = tmp_path_factory.mktemp("tls")
    async with (
        backends.run_nats(backend, keys_folder, websocket=True) as nats,
        whole_sandbox.on(postgres_server, nats, keys_folder, certificates) as running,
    ):
        yield running
