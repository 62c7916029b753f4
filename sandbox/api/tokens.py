# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Token -> caller, as the recorded server decides it (docs/facts/arvados.md 2 and 9).

Each request asks the database anew: a token that was deleted, expired or whose container ended is
refused with the next request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.api import parameters
from sandbox.api.callers import Caller
from sandbox.cluster import Cluster
from sandbox.model.refusal import not_logged_in

# By the range of the index in which users stand: Arvados itself reads no row of the many at groups
# to tell whose a token is.
_USER = """
SELECT u.*, ARRAY(
    SELECT found.perm_level || found.target_uuid
    FROM (SELECT DISTINCT left(uuid, 5) || '-tpzed-' AS kind FROM users) AS known
    CROSS JOIN LATERAL (
        SELECT p.perm_level, p.target_uuid, p.traverse_owned FROM materialized_permissions p
        WHERE p.user_uuid = u.uuid AND p.target_uuid >= known.kind || '000000000000000'
          AND p.target_uuid <= known.kind || 'zzzzzzzzzzzzzzz'
        OFFSET 0
    ) AS found WHERE found.traverse_owned) AS reach
FROM users u WHERE u.uuid = $1"""


def presented(headers: Mapping[str, str], given: Mapping[str, Any]) -> list[str]:
    """The token strings that a request carries, best first."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    found = [text.strip()] if scheme.lower() in ("bearer", "oauth2") else []
    found += [str(given[name]) for name in ("api_token", "oauth_token") if given.get(name)]
    found += [str(token) for token in parameters.array(given, "reader_tokens") or []]
    return [token for token in found if token]


async def caller(cluster: Cluster, token: str, remote: str | None = None) -> Caller:
    """Who the token is; `Refusal` 401 when it is not valid. `remote`: salted for that cluster."""
    actor = await cluster.authenticate(token, remote)
    row = await cluster.pool.fetchrow(_USER, actor.uuid)
    if row is None:
        raise not_logged_in()
    user = dict(row)
    reach = {item[1:]: int(item[0]) for item in user.pop("reach")}
    return Caller(actor, cluster.config, user, {actor.uuid: 3} | reach)
