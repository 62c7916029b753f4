# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether Arvados shows role groups to every active user: `Users.RoleGroupsVisibleToAll`.

Arvados exports it with the rest of its public configuration, which changes without a log row. Until
it is known, role groups are shown to their members alone (never looser than Arvados).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NoReturn

from arvados_nats.arvados_client import Arvados
from arvados_nats.errors import ArvadosNatsError
from publishers.grants_query import GrantsQuery

logger = logging.getLogger(__name__)

EVERY = 600.0
_RETRY = 5.0


async def follow(arvados: Arvados, query: GrantsQuery, *, every: float = EVERY) -> NoReturn:
    """Keep the query's setting as Arvados has it, until cancelled."""
    while True:
        pause = every
        try:
            visible = is_on(await arvados.exported_config())
        except ArvadosNatsError as error:
            pause = min(_RETRY, every)
            logger.warning(
                "role visibility is not known",
                extra={"action": "grants.role_visibility", "error": str(error)},
            )
        else:
            query.role_groups_visible = visible
        await asyncio.sleep(pause)


def is_on(config: dict[str, Any]) -> bool:
    """The switch in an exported configuration; off where it is not said."""
    users = config.get("Users")
    return isinstance(users, dict) and users.get("RoleGroupsVisibleToAll") is True
