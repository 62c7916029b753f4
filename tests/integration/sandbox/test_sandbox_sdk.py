# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The real Arvados Python SDK works against the sandbox, over TLS, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from sandbox.sandbox import Sandbox

SCRIPT = """
import json, sys
import arvados
import arvados.util

project, request = sys.argv[1:]
api = arvados.api("v1")
container_request = api.container_requests().get(uuid=request).execute()
print(json.dumps({
    "user": api.users().current().execute()["username"],
    "token": api.api_client_authorizations().current().execute()["scopes"],
    "websocketUrl": api._rootDesc["websocketUrl"],
    "uuidPrefix": api._rootDesc["uuidPrefix"],
    "collections": [c["name"] for c in arvados.util.keyset_list_all(
        api.collections().list, order_key="created_at",
        filters=[["owner_uuid", "=", project]])],
    "request": container_request["state"],
    "container": api.containers().get(uuid=container_request["container_uuid"]).execute()["state"],
    "logs": api.logs().list(filters=[["object_uuid", "=", request]], order="id asc",
                            limit=1).execute()["items"][0]["event_type"],
    "many": len(api.groups().list(
        filters=[["uuid", "in", [project] * 400]]).execute()["items"]),
    "contents": api.groups().contents(uuid=project).execute()["items_available"],
    "created": api.groups().create(body={"group": {
        "name": "made by the SDK", "group_class": "project"}}).execute()["name"],
}))
try:
    api.groups().get(uuid=project[:12] + "z" * 15).execute()
except arvados.errors.ApiError as error:
    print(error.resp.status)
"""


async def _run(sandbox: Sandbox, token: str, *arguments: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT,
        *arguments,
        env={**sandbox.client_environment(token), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().splitlines()


@pytest.fixture(scope="module")
async def answers(sandbox: Sandbox) -> dict[str, Any]:
    """What the SDK was told in one run of the script."""
    sandbox.advertise("wss://127.0.0.1:8000/websocket")
    cluster = sandbox.cluster
    user = await cluster.user("sdk")
    project = await cluster.project("sea", owner=user)
    for name in ("one", "two", "three"):
        await cluster.collection(name, owner=project, by=user)
    request = await cluster.container_request(owner=project, by=user)
    first, second = await _run(sandbox, user.token, project.uuid, request.uuid)
    found: dict[str, Any] = json.loads(first)
    return found | {"status": int(second)}


def test_the_sdk_finds_who_it_is(answers: dict[str, Any]) -> None:
    """users.current and the token's own record."""
    assert (answers["user"], answers["token"]) == ("sdk", ["all"])


def test_the_sdk_finds_the_websocket_server(answers: dict[str, Any]) -> None:
    """The discovery document tells the URL that was set, and the cluster's prefix."""
    assert answers["websocketUrl"] == "wss://127.0.0.1:8000/websocket"
    assert answers["uuidPrefix"] == "zzzzz"


def test_the_sdk_pages_through_a_list(answers: dict[str, Any]) -> None:
    """keyset_list_all, as every Arvados tool pages."""
    assert answers["collections"] == ["one", "two", "three"]
    assert answers["contents"] == 4


def test_the_sdk_reads_requests_containers_and_logs(answers: dict[str, Any]) -> None:
    """What arvados-cwl-runner and PollClient read."""
    assert (answers["request"], answers["container"]) == ("Committed", "Queued")
    assert answers["logs"] == "create"


def test_a_long_query_goes_by_post(answers: dict[str, Any]) -> None:
    """Over 2048 characters the client library sends POST with a method override."""
    assert answers["many"] == 1


def test_the_sdk_writes_and_is_refused(answers: dict[str, Any]) -> None:
    """A create is answered with the record, an unknown uuid with ApiError 404."""
    assert (answers["created"], answers["status"]) == ("made by the SDK", 404)
