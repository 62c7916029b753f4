# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A service that says it is well does what is asked of it: a rolling update relies on that."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import sys
import time

import httpx
import pytest

from arvados_nats.contract import streams, subjects
from arvados_nats.permission_client import grants_messages, object_messages, tokens_watch
from arvados_nats.permission_client.grants_cache import GrantsCache
from arvados_nats.service import ops
from authcallout.callout import PROBE
from sandbox.sandbox import MANAGEMENT_TOKEN
from sandbox.servers import child
from sandbox.stack import Service, Stack
from tests.support.clients.native import lets_in, lets_in_at_last
from tests.support.clients.native_answers import trusted

_LOOK_UP = "GET /arvados/v1/api_client_authorizations/current"
_CURRENT_USER = "GET /arvados/v1/users/current"
_WELL = {"health": "OK", "version": ops.VERSION}


@pytest.fixture(scope="module")
def stack(own_stack: Stack) -> Stack:
    """Of this file alone: services start in any order, and without others."""
    return own_stack


async def started(service: Service) -> None:
    """Start it, and return at the very moment when it says that it is well."""
    command = [sys.executable, "-m", "arvados_nats", *service.arguments]
    service.process = child.start(command, log=service.log, environment=service.environment)
    await asyncio.to_thread(_until_well, service)


def _until_well(service: Service) -> None:
    """Once it listens, without a pause and over one connection: not a moment late."""
    headers = {"Authorization": f"Bearer {MANAGEMENT_TOKEN}"}
    asking = http.client.HTTPConnection("127.0.0.1", service.ops_port, timeout=5)
    body = None
    while body != _WELL:
        assert service.process and service.process.running, service.output
        try:
            asking.request("GET", "/_health/ping", headers=headers)
            body = json.load(asking.getresponse())
        except ConnectionRefusedError:
            asking.close()
            time.sleep(0.005)
    asking.close()


async def test_publishers_answer_as_soon_as_they_are_well(stack: Stack) -> None:
    """Grants, tokens and objects, whenever it is asked: at several starts."""
    alice = await stack.sandbox.cluster.user("alice")
    publishers = stack.services["publishers"]
    async with trusted(stack) as nats:
        for _ in range(3):
            await publishers.stop()
            await started(publishers)
            assert await tokens_watch.live(nats, [str(alice.token_uuid)])
            assert (await GrantsCache(nats).of(alice.uuid)).is_active
            answer = await nats.request(subjects.OBJECTS_GET, alice.uuid.encode())
            grants_messages.check_answer(answer.headers)
            assert object_messages.decode(answer.headers, answer.data).record


async def _health(service: Service) -> str:
    headers = {"Authorization": f"Bearer {MANAGEMENT_TOKEN}"}
    url = f"http://127.0.0.1:{service.ops_port}/_health/ping"
    async with httpx.AsyncClient(headers=headers) as client:
        try:
            return (await client.get(url)).text
        except httpx.HTTPError:
            return ""


async def _says(service: Service, text: str) -> None:
    async with asyncio.timeout(60):
        while text not in await _health(service):  # noqa: ASYNC110  (each look is a question)
            await asyncio.sleep(0.05)


async def test_no_service_is_well_before_a_publisher_has_answered(stack: Stack) -> None:
    """People would be let in and shown nothing, and every check would say ok (V1)."""
    publishers = stack.services["publishers"]
    others = [stack.services[name] for name in ("authcallout", "wsproxy")]
    await publishers.stop()
    for service in others:
        await service.stop()
        command = [sys.executable, "-m", "arvados_nats", *service.arguments]
        service.process = child.start(command, log=service.log, environment=service.environment)
    for service in others:
        await _says(service, "publishers: no publisher answers: do they run")
    await publishers.start()
    for service in others:
        await _says(service, "OK")


async def test_no_service_is_well_while_the_api_server_does_not_answer(stack: Stack) -> None:
    """A controller tells its configuration by itself when the API server behind it is down; so who
    asks for nothing but that is well, while nobody could log in (V15)."""
    newcomer = await stack.sandbox.cluster.user("newcomer")
    services = [stack.services[name] for name in ("authcallout", "wsproxy", "publishers")]
    with stack.sandbox.backend.faults.failing(_CURRENT_USER, 503):
        for service in services:
            await _says(service, "see whether the controller and the API server behind it work")
    assert await lets_in_at_last(stack, newcomer.token)
    for service in services:
        await _says(service, "OK")


async def test_the_callout_is_not_well_while_no_question_of_a_login_is_answered(
    stack: Stack,
) -> None:
    """Whoever is refused without a question, such as the probe of health, says nothing of it."""
    callout = stack.services["authcallout"]
    newcomer = await stack.sandbox.cluster.user("newcomer")
    with stack.sandbox.backend.faults.failing(_LOOK_UP, 503):
        for token in (newcomer.token, newcomer.token, PROBE, "no token", newcomer.token):
            assert not await lets_in(stack, token)
        await _says(callout, "the last 3 were not decided")
    assert await lets_in_at_last(stack, newcomer.token)
    await _says(callout, "OK")


async def test_pushed_logs_need_no_token_for_the_log_api(stack: Stack) -> None:
    """Without one no log is read; the stream is there for what containers send themselves."""
    publishers = stack.services["publishers"]
    without = dict(publishers.environment, ARVADOS_NATS_LOG_TOKEN="")
    await publishers.stop()
    try:
        async with trusted(stack) as nats, contextlib.AsyncExitStack() as exits:
            await nats.js_api(f"STREAM.DELETE.{streams.LOGS}")
            silent = dataclasses.replace(publishers, environment=without)
            exits.push_async_callback(silent.stop)
            await silent.start()
            async with asyncio.timeout(60):
                while not await streams.created(nats, streams.LOGS):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    finally:
        await publishers.start()
