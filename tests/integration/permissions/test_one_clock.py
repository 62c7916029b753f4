# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Trash and expiry are held to the database's clock, whatever clock the services' machines have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.tokens import Token
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import Decision, Identity
from publishers.live.audience import Shares
from publishers.postgres import database as postgres
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support.worlds.permissions import PermissionWorld, world
from wsproxy.events.permission_check import PermissionCheck
from wsproxy.events.principal import Principal
from wsproxy.events.record_check import RecordCheck
from wsproxy.events.router import Router
from wsproxy.logins.logins import Login
from wsproxy.logins.readable import Readable
from wsproxy.logins.whereabouts import Whereabouts
from wsproxy.transport.limits import Kept

AHEAD = 30


@pytest.fixture
async def ahead(database: Database) -> Database:
    """A database whose clock is half a minute ahead of ours."""
    owner = await asyncpg.connect(database.dsn)
    principal, name = urlsplit(database.reader_dsn).username, urlsplit(database.dsn).path[1:]
    await owner.execute(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
        f" $$ SELECT pg_catalog.clock_timestamp() + interval '{AHEAD} s' $$"
    )
    await owner.execute(
        f'ALTER ROLE "{principal}" IN DATABASE "{name}" SET search_path = public, pg_catalog'
    )
    await owner.close()
    return database


@pytest.fixture
async def here(
    ahead: Database, fresh_nats: NatsServer, keys_folder: Path
) -> AsyncIterator[PermissionWorld]:
    async with (
        world(ahead, fresh_nats, keys_folder) as made,
        made.publishing(with_events=False),
    ):
        yield made


@pytest.fixture
async def nobody() -> AsyncIterator[Arvados]:
    """Arvados is not asked: nobody answers there."""
    async with arvados_client.connect("http://127.0.0.1:9") as client:
        yield client


def nothing() -> None:
    """Nobody is told."""


async def trash(database: Database, group: str, seconds: float) -> None:
    """Have the group in the trash since so many seconds, by the database's clock."""
    since = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=AHEAD - seconds)
    owner = await asyncpg.connect(database.dsn)
    await owner.execute(
        "INSERT INTO trashed_groups (group_uuid, trash_at) VALUES ($1, $2)", group, since
    )
    await owner.close()


async def test_what_is_in_the_trash_by_the_databases_clock_is_not_read(
    here: PermissionWorld, nobody: Arvados
) -> None:
    """States and logs as well as events, for a project that was trashed ten seconds ago."""
    alice = await here.cluster.user("alice")
    project = await here.cluster.project(owner=alice)
    await trash(here.database, project.uuid, 10)
    await here.grants_cache.renew([alice.uuid])
    grants = await here.grants_cache.of(alice.uuid)
    identity = Identity("zzzzz-gj3su-000000000000001", alice.uuid)
    principal = Principal(identity, PermissionCheck(RecordCheck(nobody)), here.grants_cache.judge)
    principal.set_grants(grants)
    login = Login(Token("v2/a/b"), identity, principal, here.grants_cache, Kept(0))
    where = Whereabouts(here.reader, Router(), here.grants_cache.now)
    lost = ObjectFacts("container_request", "zzzzz-xvhdp-000000000000001", project.uuid)
    request = await where.placed(lost, nothing)
    judge = login.judge()
    assert judge is not None
    assert judge.decide(request) is Decision.NO
    readable = Readable(RecordCheck(nobody), where)
    assert not await readable.logs(login, request.uuid, lost, nothing, container=None)
    shown = ObjectFacts(
        "container",
        "zzzzz-dz642-000000000000001",
        "",
        requests=((request.uuid, project.uuid),),
        places=request.places,
    )
    assert judge.requests_shown(shown) == []


async def test_an_expired_token_reads_nothing(here: PermissionWorld) -> None:
    """It ended ten seconds ago in the database, and will in twenty by our own clock."""
    alice = await here.cluster.user("alice")
    grants = await here.grants_cache.of(alice.uuid)
    now = datetime.now(UTC).timestamp()
    ended = Identity("zzzzz-gj3su-000000000000001", alice.uuid, expires_at=now + AHEAD - 10)
    home = ObjectFacts("collection", "zzzzz-4zz18-000000000000001", alice.uuid)
    assert here.grants_cache.judge(ended, grants).decide(home) is Decision.NO


async def test_live_subjects_close_by_the_databases_clock(ahead: Database) -> None:
    """The live publisher's own look at the trash."""
    group = "zzzzz-j7d0g-000000000000001"
    request = "zzzzz-xvhdp-000000000000001"
    await trash(ahead, group, 10)
    async with postgres.connect(ahead.reader_dsn) as principal:
        above = await Shares(principal).read([(group, request)])
        assert above.hides(group, "container_request", None)
