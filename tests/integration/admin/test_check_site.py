# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`check connections` beside servers that are well, wrong, or behind something that spoils them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from arvados_nats.admin import check_arvados, check_connections, check_postgres, clocks
from arvados_nats.contract import streams
from arvados_nats.nats import client as nats_client
from arvados_nats.service import keys
from sandbox.sandbox import Sandbox
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.fronts import faulty_fronts


@pytest.fixture
async def site(sandbox: Sandbox) -> AsyncIterator[Sandbox]:
    """A cluster, and NATS with both streams."""
    async with nats_client.connect(
        [sandbox.nats.url], name="publisher", seed=sandbox.seed("publisher")
    ) as nats:
        for stream in (streams.event_stream(), streams.log_stream()):
            await streams.ensure(nats, stream)
    sandbox.advertise("wss://ws.example.com/websocket")
    yield sandbox


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("wss://ws.example.com", "it has no path"),
        ("ws://ws.example.com/websocket", "pages that came by https:// may not open it"),
    ],
)
async def test_the_address_that_arvados_tells_clients_is_looked_at(
    site: Sandbox, url: str, told: str
) -> None:
    """What the controller says counts, whatever stands in a file."""
    site.advertise(url)
    found = await check_arvados.check(site.api.url)
    assert "Services.Websocket.ExternalURL: " in str(found["Arvados"])
    assert told in str(found["Arvados"])


async def test_something_else_than_arvados_is_told(fresh_nats: NatsServer) -> None:
    """A monitoring page is no controller; nor is nobody."""
    assert fresh_nats.config.monitor
    found = await check_arvados.check(f"http://{fresh_nats.config.monitor}")
    assert found["Arvados"]
    found = await check_arvados.check("http://127.0.0.1:1")
    assert "does not answer" in str(found["Arvados"])


@pytest.mark.parametrize("renames", [False, True])
async def test_a_pooler_by_transaction_is_told(database: Database, renames: bool) -> None:
    """Whether or not it keeps the prepared statements of its clients apart."""
    async with faulty_fronts.pooling(database.reader_dsn, renames=renames) as port:
        dsn = database.reader_dsn.replace(f":{port_of(database.reader_dsn)}/", f":{port}/")
        found = await check_postgres.check(dsn)
    assert "transaction pooler" in str(found["PostgreSQL"])


async def test_postgresql_behind_a_plain_proxy_is_ok(database: Database) -> None:
    """A proxy that hands everything on keeps nothing from us."""
    server = port_of(database.reader_dsn)
    async with faulty_fronts.rewriting(server, b"(?!)", b"") as port:
        found = await check_postgres.check(database.reader_dsn.replace(f":{server}/", f":{port}/"))
    assert set(found.values()) == {None}


@pytest.mark.parametrize("dsn", ["host=127.0.0.1 port=1", "nonsense"])
async def test_a_database_that_is_not_there_is_told(dsn: str) -> None:
    """Also where the setting is no connection string."""
    assert (await check_postgres.check(dsn))["PostgreSQL"]


async def test_a_wrong_clock_of_postgresql_is_told(database: Database) -> None:
    """A quarter of an hour behind."""
    owner = await asyncpg.connect(database.dsn)
    reader = urlsplit(database.reader_dsn).username
    name = urlsplit(database.dsn).path[1:]
    await owner.execute(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
        " $$ SELECT pg_catalog.clock_timestamp() - interval '15 min' $$"
    )
    await owner.execute(
        f'ALTER ROLE "{reader}" IN DATABASE "{name}" SET search_path = public, pg_catalog'
    )
    await owner.close()
    found = await check_postgres.check(database.reader_dsn)
    assert found["PostgreSQL"] is None
    assert "900 s behind this machine's" in str(found["clock of PostgreSQL"])


async def test_a_wrong_clock_of_nats_is_told(site: Sandbox) -> None:
    """A year ago no login could succeed."""
    port = port_of(site.nats.url)
    async with faulty_fronts.rewriting(port, rb'("ts":"20)\d\d', rb"\g<1>01") as own:
        found = await check_connections.nats([f"nats://127.0.0.1:{own}"], site.seed("wsproxy"))
    assert found["NATS"] is None
    assert "behind this machine's" in str(found["clock of NATS"])
    assert "no login to NATS can succeed" in str(found["clock of NATS"])


async def test_a_wrong_clock_of_arvados_is_told(site: Sandbox) -> None:
    """From the Date of its answer."""
    moved = rb"\g<1>2091 "
    async with faulty_fronts.rewriting(
        port_of(site.api.url), rb"(?i)(date: \w+, \d+ \w+ )\d{4} ", moved
    ) as own:
        found = await check_arvados.check(f"http://127.0.0.1:{own}")
    assert found["Arvados"] is None
    assert "ahead of this machine's" in str(found["clock of Arvados"])


async def test_a_server_that_is_too_old_is_told(site: Sandbox) -> None:
    """With what is needed instead."""
    port = port_of(site.nats.url)
    async with faulty_fronts.rewriting(port, rb'"version":"[^"]+"', b'"version":"2.10.29"') as own:
        found = await check_connections.nats([f"nats://127.0.0.1:{own}"], site.seed("wsproxy"))
    assert "2.10.29" in str(found["NATS"])
    assert "2.14" in str(found["NATS"])


@pytest.mark.parametrize(
    ("asked", "theirs", "answered", "resolution", "ahead"),
    [
        (10.0, 10.5, 11.0, 0.0, 0.0),
        (10.0, 11.5, 11.0, 0.0, 0.5),
        (10.0, 9.5, 11.0, 0.0, -0.5),
        (10.9, 10.0, 10.95, 1.0, 0.0),
        (10.9, 9.0, 10.95, 1.0, -0.9),
    ],
)
def test_a_clock_is_only_as_wrong_as_its_answer_proves(
    asked: float, theirs: float, answered: float, resolution: float, ahead: float
) -> None:
    """The way there and back may have taken all of the time; a Date has whole seconds."""
    assert clocks.ahead(asked, theirs, answered, resolution) == pytest.approx(ahead)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (clocks.TOLERANCE, None),
        (-clocks.TOLERANCE, None),
        (6.0, "6 s ahead of"),
        (-59.0, "59 s behind"),
        (-60.0, "no login to NATS"),
    ],
)
def test_what_a_wrong_clock_does_is_told(seconds: float, told: str | None) -> None:
    """From the seconds on that somebody notices."""
    wrong = clocks.wrong(seconds)
    assert (wrong is None) == (told is None)
    assert told is None or told in str(wrong)
    assert seconds != -59.0 or "no login" not in str(wrong)


async def test_keys_of_another_installation_are_told(
    site: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The check ends, and says that nobody lets us in."""
    folder = tmp_path_factory.mktemp("strange")
    keys.ensure(folder)
    found = await check_connections.nats([site.nats.url], keys.load(folder, "wsproxy").text)
    assert found["NATS"]
