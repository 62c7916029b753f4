# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The permission publisher: who may read what, and that it changed (design: flows 2 and 3).

Every replica answers questions (`answers`, `object_answers`) and hears what the others
answered; the one that holds the lock also notices changes (`grants_leader`) and dead tokens
(`token_sweep`) and tells.
When the database is away nothing is answered and nothing told; readers keep what they have for a
bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.nats.client import Message, Nats
from arvados_nats.permission_client import grants_messages
from arvados_nats.service.ops import Health
from publishers.permissions import answers as grants_answers
from publishers.permissions import leader as grants_leader
from publishers.permissions import metrics, object_answers, token_query, token_sweep, trash_times
from publishers.permissions.leader import GrantsLeader
from publishers.permissions.query import GrantsQuery
from publishers.permissions.token_query import TokenQuery
from publishers.permissions.token_sweep import TokenSweep
from publishers.postgres.database import Database
from publishers.postgres.leader import Leadership, Lock
from publishers.retry import Attempts

LOCK = Lock("permissions")


@dataclass(frozen=True, slots=True)
class Options:
    """Times in seconds. `role_groups_visible` is Arvados' `Users.RoleGroupsVisibleToAll`, which no
    controller exports; None: not known."""

    role_groups_visible: bool | None = None
    round: float = grants_leader.ROUND
    sweep: float = token_sweep.SWEEP
    grace: float = token_query.GRACE
    replicas: int = 1


async def run(
    nats: Nats,
    database: Database,
    health: Health,
    options: Options,
    *,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Answer, and tell while this process has the lock; until cancelled. `ready`: it leads."""
    grants = GrantsQuery(database, role_groups_visible=options.role_groups_visible)
    tokens = TokenQuery(database, grace=options.grace)
    leading = GrantsLeader(nats, grants, round_seconds=options.round)

    async def heard(message: Message) -> None:
        leading.answered(grants_messages.answered(message.data))

    await nats.subscribe(subjects.GRANTS_ANSWERED, heard)
    sweep = TokenSweep(nats, tokens, every=options.sweep)
    async with asyncio.TaskGroup() as tasks:
        answering = asyncio.Event(), asyncio.Event()
        tasks.create_task(grants_answers.answer(nats, grants, tokens, answering[0].set))
        tasks.create_task(object_answers.answer(nats, database, answering[1].set))
        # Whoever hears that this replica leads, or is well, asks it.
        for event in answering:
            await event.wait()
        tasks.create_task(sweep.run(Attempts(health, "tokens")))
        tasks.create_task(trash_times.tell(nats, database, lambda: sweep.leads))
        attempts = Attempts(health, "permissions")
        leadership = Leadership(nats, LOCK, attempts, options.replicas)
        tasks.create_task(_lead(database, leadership, leading, sweep, ready))


async def _lead(
    database: Database,
    leadership: Leadership,
    changes: GrantsLeader,
    sweep: TokenSweep,
    ready: Callable[[], None],
) -> None:
    attempts = leadership.attempts

    def leading() -> None:
        attempts.succeeded()
        ready()

    while True:
        try:
            async with database.session() as session, leadership.held(session):
                with metrics.LEADING.track_inprogress():
                    async with sweep.leading():
                        await changes.run(leading)
        except ArvadosNatsError as error:
            await attempts.failed(error)
