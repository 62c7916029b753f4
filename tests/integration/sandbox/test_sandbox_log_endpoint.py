# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The container log endpoint: WebDAV over the gateway while it runs, over the saved log after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from xml.etree import ElementTree

import httpx
import pytest

from sandbox.logs.log_files import NumberedLines
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.sandbox import Sandbox

MULTI_STATUS = 207


class Job:
    """One request with its container, and a client that asks for its logs."""

    def __init__(
        self, sandbox: Sandbox, client: httpx.AsyncClient, owner: Actor, request: Record
    ) -> None:
        self.sandbox = sandbox
        self.client = client
        self.owner = owner
        self.request = request
        self.container = str(request["container_uuid"])

    async def ask(
        self,
        method: str = "GET",
        path: str | None = None,
        *,
        token: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """A request below the log folder; `path` is `<container>/stdout.txt` unless given."""
        path = f"{self.container}/stdout.txt" if path is None else path
        return await self.client.request(
            method,
            f"/arvados/v1/container_requests/{self.request.uuid}/log/{path}",
            headers={"Authorization": f"Bearer {token or self.owner.token}", **headers},
        )

    async def sizes(self, path: str | None = None) -> dict[str, int | None]:
        """Name -> size of what PROPFIND lists below the folder (None: a folder)."""
        answer = await self.ask("PROPFIND", f"{self.container}/" if path is None else path)
        assert answer.status_code == MULTI_STATUS, answer.text
        found = {}
        for item in ElementTree.fromstring(answer.content):
            href = str(item.findtext("{DAV:}href")).rstrip("/")
            size = item.findtext(".//{DAV:}getcontentlength")
            found[href.rpartition("/")[2]] = int(size) if size is not None else None
        return found

    def write(self, data: bytes, file: str = "stdout.txt") -> None:
        """Append to a live file."""
        self.sandbox.cluster.logs.append(self.container, file, data)


@pytest.fixture
async def job(sandbox: Sandbox) -> AsyncIterator[Job]:
    """A container that is Queued."""
    owner = await sandbox.cluster.user("ann")
    request = await sandbox.cluster.container_request(owner=owner)
    async with httpx.AsyncClient(base_url=sandbox.api.url) as client:
        yield Job(sandbox, client, owner, request)


@pytest.fixture
async def running(job: Job) -> Job:
    """A container that is Running and has written a line."""
    await job.sandbox.cluster.run(job.request)
    job.write(b"hello world\n")
    return job


async def test_options_shows_that_it_is_webdav(running: Job) -> None:
    """arvados-client takes the Dav header as the sign that the endpoint is there."""
    answer = await running.ask("OPTIONS")
    assert (answer.status_code, answer.headers["Dav"]) == (200, "1, 2")
    assert "PROPFIND" in answer.headers["Allow"]


async def test_a_preflight_needs_no_token(running: Job) -> None:
    """Browsers ask without one, and are allowed Range and PROPFIND."""
    path = f"/arvados/v1/container_requests/{running.request.uuid}/log/{running.container}/"
    answer = await running.client.options(path, headers={"Access-Control-Request-Method": "GET"})
    assert answer.status_code == 200
    assert "Range" in answer.headers["Access-Control-Allow-Headers"]
    assert "PROPFIND" in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_propfind_lists_the_live_files(running: Job, slash: str) -> None:
    """With and without the slash, sizes as they are now."""
    assert await running.sizes(running.container + slash) == {
        running.container: None,
        "stdout.txt": 12,
    }


async def test_a_range_follows_what_is_written(running: Job) -> None:
    """206 with what is new; 416 at the end; more once more is written."""
    answer = await running.ask(Range="bytes=6-")
    assert (answer.status_code, answer.content) == (206, b"world\n")
    assert answer.headers["Content-Range"] == "bytes 6-11/12"
    assert (await running.ask(Range="bytes=12-")).status_code == 416
    running.write(b"more\n")
    assert (await running.ask(Range="bytes=12-")).content == b"more\n"


async def test_the_size_alone_can_be_asked_for(running: Job) -> None:
    """`bytes=-0` and HEAD answer no bytes and the size."""
    answer = await running.ask(Range="bytes=-0")
    assert (answer.status_code, answer.content) == (206, b"")
    assert answer.headers["Content-Range"] == "bytes 12-11/12"
    head = await running.ask("HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "12")


async def test_a_file_that_is_not_there_yet_is_404(running: Job) -> None:
    """And an empty one answers 200 with nothing, whatever the range."""
    path = f"{running.container}/stderr.txt"
    assert (await running.ask(path=path)).status_code == 404
    running.write(b"", "stderr.txt")
    answer = await running.ask(path=path, Range="bytes=0-")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_file_may_shrink(running: Job) -> None:
    """Then the old place is past the end."""
    running.sandbox.cluster.logs.truncate(running.container, "stdout.txt", 5)
    assert (await running.sizes())["stdout.txt"] == 5
    assert (await running.ask(Range="bytes=12-")).status_code == 416


async def test_a_scope_for_the_container_is_asked_for_as_well(running: Job) -> None:
    """The controller reads the request and its container with the caller's token first."""
    cluster, requests = running.sandbox.cluster, "GET /arvados/v1/container_requests/"
    narrow = await cluster.token(running.owner, scopes=[requests])
    assert (await running.ask(token=narrow.token)).status_code == 403
    container = f"GET /arvados/v1/containers/{running.container}"
    wide = await cluster.token(running.owner, scopes=[requests, container])
    assert (await running.ask(token=wide.token)).status_code == 200


async def test_who_can_not_read_the_request_gets_404(running: Job) -> None:
    """Others as for an unknown request; no valid token is 401."""
    stranger = await running.sandbox.cluster.user("eve")
    assert (await running.ask(token=stranger.token)).status_code == 404
    assert (await running.ask("PROPFIND", token=stranger.token)).status_code == 404
    assert (await running.ask(token="v2/x/y")).status_code == 401


async def test_who_is_shown_the_project_may_read_the_log(running: Job) -> None:
    """Permission comes from the request, and goes with it."""
    cluster = running.sandbox.cluster
    reader = await cluster.user("rob")
    project = await cluster.project(owner=running.owner)
    await cluster.move(running.request, project)
    await cluster.share(project, reader)
    assert (await running.ask(token=reader.token)).status_code == 200
    await cluster.unshare(project, reader)
    assert (await running.ask(token=reader.token)).status_code == 404


async def test_before_it_runs_there_is_an_empty_folder(job: Job) -> None:
    """No gateway and no saved log: nothing to list, no file to read."""
    assert await job.sizes() == {job.container: None}
    assert (await job.ask()).status_code == 404


async def test_newer_controllers_have_no_folder_before_it_runs(job: Job) -> None:
    """Switched over, only the folder above is there."""
    job.sandbox.cluster.logs.empty_folder = False
    try:
        assert (await job.ask("PROPFIND", f"{job.container}/")).status_code == 404
        assert await job.sizes("") == {"log": None}
    finally:
        job.sandbox.cluster.logs.empty_folder = True


async def test_the_saved_log_takes_over_at_the_same_offset(running: Job) -> None:
    """After the end the same bytes are at the same place, from the log collection."""
    await running.sandbox.cluster.finish(running.request)
    assert (await running.sizes())["stdout.txt"] == 12
    answer = await running.ask(Range="bytes=6-")
    assert (answer.status_code, answer.content) == (206, b"world\n")


async def test_a_checkpoint_is_not_what_a_running_container_shows(running: Job) -> None:
    """While the gateway answers, it is the truth."""
    await running.sandbox.cluster.checkpoint(running.request)
    running.write(b"more\n")
    assert (await running.ask()).content == b"hello world\nmore\n"


async def test_a_broken_tunnel_is_503_until_it_is_mended(running: Job) -> None:
    """Never 404: the file is there, only out of reach."""
    logs = running.sandbox.cluster.logs
    logs.set_tunnel(running.container, up=False)
    assert (await running.ask()).status_code == 503
    assert (await running.ask("PROPFIND", f"{running.container}/")).status_code == 503
    logs.set_tunnel(running.container, up=True)
    assert (await running.ask()).content == b"hello world\n"


async def test_a_dead_node_leaves_the_last_checkpoint(running: Job) -> None:
    """503 while Arvados still thinks it runs; after that what was saved."""
    cluster = running.sandbox.cluster
    await cluster.checkpoint(running.request)
    running.write(b"lost\n")
    cluster.logs.kill_node(running.container)
    assert (await running.ask()).status_code == 503
    await cluster.cancel(running.container, "node died")
    assert (await running.ask()).content == b"hello world\n"


async def test_a_retry_keeps_the_log_of_the_first_attempt(running: Job) -> None:
    """The request shows the new container; the old one's saved log stays in its folder."""
    cluster = running.sandbox.cluster
    await cluster.checkpoint(running.request)
    await cluster.cancel(running.request, "try again")
    again = await cluster.run(running.request)
    assert again.uuid != running.container
    cluster.logs.append(again.uuid, "stdout.txt", b"second\n")
    assert (await running.ask()).content == b"hello world\n"
    assert (await running.ask(path=f"{again.uuid}/stdout.txt")).content == b"second\n"


async def test_a_gigabyte_is_served_by_range(running: Job) -> None:
    """A computed log of 1 GB: its end is there at once."""
    lines = NumberedLines(10_000_000)
    running.sandbox.cluster.logs.put(running.container, "big.txt", lines)
    path = f"{running.container}/big.txt"
    answer = await running.ask(path=path, Range=f"bytes={lines.size - 100}-")
    assert answer.content == lines.line(9_999_999)
    answer = await running.ask(path=path, Range="bytes=1000000-1999999")
    assert answer.content == lines.read(1_000_000, 2_000_000)


async def test_one_connection_serves_many_polls(running: Job) -> None:
    """A tailer keeps its connection; the server does not close it."""
    ports = set()
    for _ in range(30):
        answer = await running.ask(Range="bytes=-0")
        stream = answer.extensions["network_stream"]
        ports.add(stream.get_extra_info("client_addr"))
    assert len(ports) == 1


async def test_a_folder_is_not_a_file(running: Job) -> None:
    """GET of the folder is 405; PROPFIND of a file lists that file alone."""
    assert (await running.ask(path=f"{running.container}/")).status_code == 405
    assert await running.sizes(f"{running.container}/stdout.txt") == {"stdout.txt": 12}
    answer = await running.ask("PROPFIND", f"{running.container}/", Depth="0")
    assert b"stdout.txt" not in answer.content
