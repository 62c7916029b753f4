# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""docs/openapi.yaml says what wsproxy answers over HTTP: each answer is asked of the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml
from starlette.routing import Mount, Route

from arvados_nats.contract import subjects
from arvados_nats.service.ops import Health
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.sandbox import MANAGEMENT_TOKEN
from tests.support.clients import v1 as clients
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site
from tests.v1 import test_sse
from wsproxy.app import App
from wsproxy.page.routes import STATIC
from wsproxy.services import Services

DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text(encoding="utf-8")
)
REQUESTS = "/arvados/v1/container_requests/{uuid}/log_events"
FOLDER = "/arvados/v1/container_requests/{uuid}/log/{path}"
CONTAINERS = "/arvados/v1/containers/{uuid}/log_events"
GUARDED = ("/_health/ping", "/_health/db", "/metrics")
PLAIN = ("/websocket", "/v1/stream", "/wamp", "/arvados/v1/events.ws")
UNSHOWN = ("text/html", "text/css", "text/javascript")
"""Answers without an example."""
HIDDEN = "zzzzz-{}-000000000000001"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and the answer that the document promises. `server`: which of the wsproxies."""

    path: str
    status: int
    method: str = "get"
    token: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    query: str = ""
    server: str = "usual"
    last: str = ""
    asked: str = ""


def described() -> set[tuple[str, str, int]]:
    """(path, method, status) of all answers in the document."""
    return {
        (path, method, int(status))
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
        for status in operation["responses"]
    }


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref` leads to."""
    found: Any = node
    if "$ref" in node:
        found = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
    return cast("dict[str, Any]", found)


@pytest.fixture
async def asks(site: Site, cluster: Cluster, alice: Actor) -> list[Ask]:
    """A request for each answer, with a container that has ended."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"line\n")
    await cluster.finish(container)
    made = []
    for path, uuid, other in (
        (REQUESTS, request.uuid, HIDDEN.format("xvhdp")),
        (CONTAINERS, container.uuid, HIDDEN.format("dz642")),
    ):
        here, token = {"uuid": uuid}, alice.token
        async with test_sse.opened(site, uuid, alice) as events:
            await events.rest()
        made += [
            Ask(path, 200, token=token, values=here),
            Ask(path, 204, token=token, values=here, last=events.last_id),
            Ask(path, 204, "options", values=here),
            Ask(path, 400, token=token, values=here, query="?tail=many"),
            Ask(path, 400, token=token, values=here, query="?tail=10001"),
            Ask(path, 400, token=token, values=here, query="?tial=3"),
            Ask(path, 400, token=token, values=here, query="?files=a.txt&files=b.txt"),
            Ask(path, 401, values=here),
            Ask(path, 404, token=token, values={"uuid": other}),
            Ask(path, 429, token=token, values=here, server="of one session"),
            Ask(path, 503, token=token, values=here, server="without Arvados"),
        ]
    query = f"?container={container.uuid}&file=stdout.txt&text=LINE&from=0&to=5"
    found = Ask("/v1/search", 200, token=alice.token, query=query)
    made += [
        found,
        replace(found, status=400, query="?text=x"),
        replace(found, status=401, token=None),
    ]
    made.append(replace(found, status=503, server="without Arvados"))
    hidden = query.replace(container.uuid, HIDDEN.format("dz642"))
    made.append(replace(found, status=404, query=hidden))
    listed = Ask("/v1/processes", 200, token=alice.token)
    made += await _live_asks(cluster, alice)
    made += [
        replace(asked, status=400, query=f"{asked.query or '?'}&tial=3")
        for asked in (found, listed)
    ]
    return [*made, listed, replace(listed, status=503, server="without Arvados"), *_other_asks()]


async def _live_asks(cluster: Cluster, alice: Actor) -> list[Ask]:
    """Of the log folder of a container that runs."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"line\n")
    here = {"uuid": request.uuid, "path": container.uuid}
    there = {**here, "path": f"{container.uuid}/stdout.txt"}
    file = Ask(FOLDER, 200, token=alice.token, values=there)
    return [
        Ask(FOLDER, 207, "x-propfind", alice.token, here),
        Ask(FOLDER, 421, "x-propfind", None, here),
        Ask(FOLDER, 421, "options", alice.token, there),
        file,
        replace(file, method="head"),
        replace(file, status=206, asked="bytes=1-2"),
        replace(file, status=416, asked="bytes=5-"),
        replace(file, status=421, token=None),
        replace(file, status=421, token=None, method="head"),
    ]


def _other_asks() -> Iterator[Ask]:
    for path in GUARDED:
        yield Ask(path, 200, token=MANAGEMENT_TOKEN)
        yield Ask(path, 401)
        yield Ask(path, 403, token="wrong")
        yield Ask(path, 404, token=MANAGEMENT_TOKEN, server="without ManagementToken")
    for path in PLAIN:
        yield Ask(path, 400)
        yield Ask(path, 400, "head")
    yield Ask("/", 200)
    yield Ask("/workbench.js", 200)
    yield Ask("/v1/site", 200)
    yield Ask("/v1/site", 400, query="?return_to=x")
    yield Ask("/v1/site", 503, server="without Arvados")
    yield Ask("/v1/processes", 401)
    for file in ("arvados-events.js", *(path.name for path in STATIC.glob("*.css"))):
        yield Ask("/static/{file}", 200, values={"file": file})
    yield Ask("/static/{file}", 404, values={"file": "none.js"})


async def answered(base: str, ask: Ask) -> None:
    """The answer has the status, type and headers that are promised."""
    headers = {"Authorization": f"Bearer {ask.token}"} if ask.token else {}
    if ask.last:
        headers["Last-Event-ID"] = ask.last
    if ask.asked:
        headers["Range"] = ask.asked
    method = ask.method.removeprefix("x-")  # what OpenAPI has no word for
    url = base.replace("ws", "http", 1) + ask.path.format(**ask.values) + ask.query
    async with httpx.AsyncClient() as http, http.stream(method, url, headers=headers) as answer:
        assert answer.status_code == ask.status, ask
        promised = resolved(DOCUMENT["paths"][ask.path][ask.method]["responses"][str(ask.status)])
        for name in promised.get("headers", {}):
            assert name.lower() in answer.headers, ask
        types = promised.get("content")
        if types:
            found = answer.headers["content-type"].partition(";")[0]
            assert found in types, ask
            if method == "head":
                return
            if example := types[found].get("example"):
                await answer.aread()
                assert_alike(example, answer.text, ask)
            else:
                assert found in UNSHOWN, ask


def assert_alike(example: Any, text: str, ask: Ask) -> None:
    """An example has what answers have: fields of the same types, or lines that begin alike."""
    if not isinstance(example, str):
        assert_fields(example, yaml.safe_load(text), ask)
        return
    for line in filter(None, example.splitlines()):
        begin, _, body = line.partition('{"')
        if not body:
            assert re.findall("[A-Za-z:]+", line)[0] in text, (line, ask)
            continue
        bodies = [one.removeprefix(begin) for one in text.splitlines() if one.startswith(begin)]
        shown = json.loads('{"' + body)
        alike = [one for one in map(json.loads, bodies) if shown.keys() == one.keys()]
        assert_fields(shown, alike[0], ask)


def assert_fields(example: Any, found: Any, ask: Ask) -> None:
    """All that the example has is there."""
    if isinstance(example, dict) and isinstance(found, dict):
        for name, value in example.items():
            if name in found or not subjects.is_uuid(name):
                assert_fields(value, found[name], ask)
    elif isinstance(example, list) and isinstance(found, list):
        for value, other in zip(example, found, strict=False):
            assert_fields(value, other, ask)
    else:
        assert type(example) is type(found), (example, found, ask)


@pytest.mark.parametrize("path", ["/", "/static/arvados-events.js", "/v1/site"])
async def test_what_a_browser_must_not_guess_is_said(site: Site, path: str) -> None:
    """Types, caches, referrers, and that no other page may frame ours (S15)."""
    base = site.websocket_url.removesuffix("/websocket")
    async with httpx.AsyncClient(base_url=base) as client:
        headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"
    if path == "/":
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "connect-src 'self';" in policy
        (meta,) = re.findall('content="(default-src[^"]*)"', (STATIC / "index.html").read_text())
        assert policy == f"{meta}; frame-ancestors 'none'"


async def test_every_answer_is_as_described(site: Site, asks: list[Ask], alice: Actor) -> None:
    """By servers in the states that they can be in; none is left out."""
    assert {(ask.path, ask.method, ask.status) for ask in asks} == described()
    nowhere = sites.settings(site, arvados_api_host="http://127.0.0.1:9")
    unguarded = sites.settings(site, management_token=None)
    small = sites.settings(site, max_connections_per_user=1)
    async with (
        sites.serving(nowhere) as first,
        sites.serving(unguarded) as second,
        sites.serving(small) as third,
        clients.connected(third, alice),
    ):
        bases = {
            "usual": site.websocket_url.removesuffix("/websocket"),
            "without Arvados": first,
            "without ManagementToken": second,
            "of one session": third,
        }
        for ask in asks:
            await answered(bases[ask.server], ask)


async def test_nothing_is_served_that_is_not_described(site: Site) -> None:
    """Each route of the program is a path of the document."""
    seen: list[Services] = []
    async with sites.serving(sites.settings(site), seen.append):
        routes = App(seen[0], Health(), lambda: None).http.routes
    served = set()
    for route in routes:
        if isinstance(route, Mount):
            served.add((f"{route.path}/{{file}}", "get"))
        elif isinstance(route, Route):
            path = route.path.replace(":path}", "}")
            methods = {method.lower() for method in route.methods or ()} - {"propfind"}
            if path == FOLDER:
                methods.add("x-propfind")
            served |= {(path, method) for method in methods}
    assert served == {(path, method) for path, method, _ in described()}
