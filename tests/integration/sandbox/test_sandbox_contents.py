# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What `groups/contents` includes beside the objects: Workbench 2 asks for containers so."""

from __future__ import annotations

import json

import httpx
import pytest

from sandbox.sandbox import Sandbox


@pytest.mark.parametrize(
    ("include", "kinds"),
    [
        (["owner_uuid"], ["arvados#user"]),
        (["container_uuid"], ["arvados#container"]),
        (["owner_uuid", "container_uuid"], ["arvados#user", "arvados#container"]),
    ],
    ids=" ".join,
)
async def test_what_is_asked_for_is_included(
    sandbox: Sandbox, include: list[str], kinds: list[str]
) -> None:
    """And nothing else (services/api groups_controller.rb)."""
    cluster = sandbox.cluster
    user = await cluster.user("with" + "".join(name[0] for name in include))
    request = await cluster.container_request("one", owner=user)
    await cluster.update(request, {"state": "Committed", "priority": 1}, user)
    async with httpx.AsyncClient(base_url=sandbox.api.url) as client:
        answer = await client.get(
            f"/arvados/v1/groups/{user.uuid}/contents",
            params={"include": json.dumps(include)},
            headers={"Authorization": f"Bearer {user.token}"},
        )
    found = answer.json()
    assert [item["uuid"] for item in found["items"]] == [request.uuid]
    assert [item["kind"] for item in found["included"]] == kinds
    if "container_uuid" in include:
        assert found["included"][-1]["uuid"] == found["items"][0]["container_uuid"]
