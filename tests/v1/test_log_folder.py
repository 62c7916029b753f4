# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""wsproxy's log folder beside the controller's: the same bytes and headers, or left to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from arvados_nats.contract import streams
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from tests.support.waiting import until
from tests.support.worlds.site import Site

LEFT = 421
COMPARED = (
    "accept-ranges",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "content-length",
    "content-range",
    "content-type",
    "etag",
    "last-modified",
)


@dataclass(slots=True)
class Panel:
    """A log panel of one process, which can ask wsproxy and the controller the same."""

    site: Site
    ours: httpx.AsyncClient
    theirs: httpx.AsyncClient
    who: Actor
    request: Record
    container: Record

    def path(self, below: str = "") -> str:
        folder = f"/arvados/v1/container_requests/{self.request.uuid}/log/{self.container.uuid}"
        return f"{folder}{below}"

    async def ask(
        self, below: str = "", method: str = "GET", *, http: httpx.AsyncClient | None = None,
        who: Actor | None = None, **headers: Any,
    ) -> httpx.Response:  # fmt: skip
        """An answer of wsproxy, or of whom is named."""
        token = {"authorization": f"Bearer {(who or self.who).token}"}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await (http or self.ours).request(method, self.path(below), headers=token | sent)

    async def both(self, below: str = "", method: str = "GET", **headers: Any) -> httpx.Response:
        """The same answer of both."""
        ours = await self.ask(below, method, **headers)
        theirs = await self.ask(below, method, http=self.theirs, **headers)
        assert seen(ours) == seen(theirs), (below, method, headers)
        return ours

    async def until_answered(self) -> httpx.Response:
        """A listing of wsproxy's own."""
        await until(lambda: self.is_left(False))
        return await self.ask(method="PROPFIND")

    async def is_left(self, expected: bool = True) -> bool:
        return ((await self.ask(method="PROPFIND")).status_code == LEFT) is expected

    async def until_left(self) -> None:
        """The controller is to be asked from now on."""
        await until(self.is_left)

    async def write(self, file: str, data: bytes) -> None:
        await self.site.cluster.write_log(self.container, file, data)


def seen(answer: httpx.Response) -> tuple[Any, ...]:
    """All of an answer that a client can go by."""
    headers = {name: answer.headers.get(name) for name in COMPARED}
    return answer.status_code, headers, answer.content


def sizes(answer: httpx.Response) -> dict[str, int]:
    """Files of a listing."""
    found = {}
    for response in ElementTree.fromstring(answer.content):
        size = response.findtext(".//{DAV:}getcontentlength")
        if size is not None:
            found[str(response.findtext("{DAV:}href")).rpartition("/")[2]] = int(size)
    return found


@asynccontextmanager
async def panel_of(site: Site, who: Actor, **request: Any) -> AsyncIterator[Panel]:
    made = await site.cluster.container_request("job", owner=who, **request)
    container = await site.cluster.run(made)
    # A busy server closes what is not used long before a busy client hears of it.
    options: dict[str, Any] = {"timeout": 30, "limits": httpx.Limits(keepalive_expiry=1)}
    async with (
        httpx.AsyncClient(base_url=site.http_url, **options) as ours,
        httpx.AsyncClient(base_url=site.api.url, **options) as theirs,
    ):
        yield Panel(site, ours, theirs, who, made, container)


@pytest.fixture
async def panel(site: Site, alice: Actor) -> AsyncIterator[Panel]:
    async with panel_of(site, alice) as opened:
        yield opened


RANGES = ("bytes=0-", "bytes=0-0", "bytes=3-7", "bytes=-4", "bytes=-0", "bytes=-999", "bytes=5-999")


async def test_it_answers_as_the_controller_does(panel: Panel) -> None:
    """Listings of each form, files whole and in part, with GET and HEAD, and where there is no
    more; characters are cut where the range cuts them."""
    await panel.write("stdout.txt", "zwölf Boxkämpfer\n".encode())
    await panel.write("crunch-run.txt", b"2026 one\n")
    await panel.until_answered()
    await asyncio.sleep(2)  # for whoever asks now the last listing is too old
    for below in ("", "/"):
        depths: tuple[dict[str, Any], ...] = ({}, {"depth": "1"}, {"depth": "0"})
        for depth in depths:
            listing = await panel.both(below, "PROPFIND", **depth)
            assert listing.status_code == 207
    for method in ("GET", "HEAD"):
        for file in ("/stdout.txt", "/crunch-run.txt"):
            assert (await panel.both(file, method)).status_code == 200
            for asked in RANGES:
                assert (await panel.both(file, method, range=asked)).status_code == 206
    assert (await panel.both("/stdout.txt", range="bytes=19-")).status_code == 416


@pytest.mark.parametrize(
    ("below", "method", "headers"),
    [
        ("/none.txt", "GET", {}),
        ("/empty.txt", "GET", {}),
        ("/stdout.txt", "OPTIONS", {}),
        ("/stdout.txt", "PROPFIND", {}),
        ("/stdout.txt", "GET", {"range": "bytes=0-1,3-4"}),
        ("/stdout.txt", "GET", {"range": "lines=0-1"}),
        ("/stdout.txt", "GET", {"range": "bytes=5-3"}),
        ("/stdout.txt", "GET", {"if_none_match": '"x"'}),
        ("/stdout.txt", "GET", {"authorization": "Basic eDp5"}),
        ("/folder/x.txt", "GET", {}),
        ("/%2e%2e/x.txt", "GET", {}),
        ("/stdout%252etxt", "GET", {}),
        ("//stdout.txt", "GET", {}),
        ("/stdout.txt/", "GET", {}),
        ("/STDOUT.TXT", "GET", {}),
        ("/stdout.txt?api_token=x", "GET", {}),
        ("/stdout.txt", "GET", {"if_modified_since": "Tue, 01 Dec 2026 00:00:00 GMT"}),
        ("/stdout.txt", "HEAD", {"if_range": '"x"', "range": "bytes=0-1"}),
        ("", "PROPFIND", {"depth": "2"}),
        ("", "GET", {}),
    ],
)
async def test_what_is_not_certain_is_left_to_the_controller(
    panel: Panel, below: str, method: str, headers: dict[str, Any]
) -> None:
    """Nobody is told no by us, and there is no empty answer."""
    await panel.write("stdout.txt", b"line\n")
    await panel.write("empty.txt", b"")
    await panel.until_answered()
    assert (await panel.ask(below, method, **headers)).status_code == LEFT


async def test_a_uuid_is_written_in_one_way(panel: Panel) -> None:
    """As Arvados writes it; what it makes of another way is for it to say."""
    await panel.write("stdout.txt", b"line\n")
    await panel.until_answered()
    token = {"authorization": f"Bearer {panel.who.token}"}
    for uuid in (panel.request.uuid, panel.container.uuid):
        path = panel.path().replace(uuid, uuid.upper())
        assert (await panel.ours.request("PROPFIND", path, headers=token)).status_code == LEFT


async def test_nothing_that_is_listed_is_left_to_the_controller(panel: Panel) -> None:
    """A folder without a byte in it is no answer."""
    assert (await panel.ask(method="PROPFIND")).status_code == LEFT
    await panel.write("stdout.txt", b"")
    assert (await panel.ask(method="PROPFIND")).status_code == LEFT


async def test_only_who_may_read_now_is_answered(panel: Panel, bob: Actor) -> None:
    """Though another's question was answered a moment before: no token, one that has died, one of
    somebody else, and one whose share was taken back."""
    cluster = panel.site.cluster
    await panel.write("stdout.txt", b"line\n")
    await panel.until_answered()
    assert (await panel.ask(who=bob, method="PROPFIND")).status_code == LEFT
    assert (await panel.ask("/stdout.txt", who=bob)).status_code == LEFT
    bare = await panel.ours.request("PROPFIND", panel.path())
    assert bare.status_code == LEFT

    async def answers(expected: int) -> bool:
        return (await panel.ask("/stdout.txt", who=bob)).status_code == expected

    await cluster.share(panel.request, bob)
    await until(lambda: answers(200))
    await cluster.unshare(panel.request, bob)
    await until(lambda: answers(LEFT))
    assert (await panel.ask(who=bob, method="PROPFIND")).status_code == LEFT
    await cluster.logout(panel.who)
    await panel.until_left()


async def test_what_is_not_readable_any_more_when_it_comes_is_left(
    panel: Panel, bob: Actor
) -> None:
    """The share ends while Arvados is asked: judged is the moment of the answer."""
    cluster, faults = panel.site.cluster, panel.site.backend.faults
    await panel.write("stdout.txt", b"line\n")
    await cluster.share(panel.request, bob)

    async def answers(expected: int) -> bool:
        return (await panel.ask("/stdout.txt", who=bob)).status_code == expected

    await until(lambda: answers(200))
    await asyncio.sleep(2)  # for whoever asks now the last listing is too old
    with faults.hanging("PROPFIND /arvados/v1/container_requests/{uuid}/log") as fault:
        asked = asyncio.create_task(panel.ask(who=bob, method="PROPFIND"))
        await asyncio.sleep(1)  # nothing says that Arvados is being asked
        await cluster.unshare(panel.request, bob)
        await until(lambda: answers(LEFT))
        fault.lifted.set()
        assert (await asked).status_code == LEFT


async def test_a_thousand_ranges_while_it_grows_ends_and_is_kept(site: Site, alice: Actor) -> None:
    """Random parts of a file that grows all the time, far beyond what the stream has; then the
    container ends, and the controller has it from Keep: every byte is the file's."""
    chosen, content, answered = random.Random(7), bytearray(), 0

    async def one(panel: Panel, size: int) -> bool:
        start = chosen.randrange(size)
        last = chosen.randrange(start, min(size, start + 100_000))
        asked = f"bytes={start}-{last}"
        part = await panel.ask("/stdout.txt", range=asked)
        left = part.status_code == LEFT
        if left:
            part = await panel.ask("/stdout.txt", http=panel.theirs, range=asked)
        assert (part.status_code, part.content) == (206, bytes(content[start : last + 1]))
        return not left

    async def same_listing(panel: Panel) -> bool:
        ours = await panel.ask(method="PROPFIND")
        return seen(ours) == seen(await panel.ask(method="PROPFIND", http=panel.theirs))

    async with panel_of(site, alice) as panel:
        await panel.write("stdout.txt", b"begin\n")
        content += b"begin\n"
        await panel.until_answered()
        for turn in range(50):
            if turn < 45:
                line = chosen.randbytes(chosen.randrange(20_000)) + "é\n".encode()
                await panel.write("stdout.txt", line)
                content += line
            elif turn == 45:
                await panel.site.cluster.finish(panel.container)
            listed = await panel.ask(method="PROPFIND")
            size = sizes(listed)["stdout.txt"] if listed.status_code == 207 else len(content)
            assert 0 < size <= len(content)
            if turn in (0, 40):
                await until(lambda: same_listing(panel))
            answered += sum(await asyncio.gather(*(one(panel, size) for _ in range(20))))
        assert answered >= 900
        await panel.until_left()


async def test_the_client_of_arvados_follows_a_log_as_at_the_controller(panel: Panel) -> None:
    """`arvados-client logs -f` asks for the size by the range -0 and then from where it stands:
    every byte once, and what is left to the controller it asks there."""
    written, got = bytearray(), bytearray()

    async def part(asked: str) -> httpx.Response:
        answer = await panel.ask("/stderr.txt", range=f"bytes={asked}")
        if answer.status_code == LEFT:
            answer = await panel.ask("/stderr.txt", http=panel.theirs, range=f"bytes={asked}")
        assert answer.status_code in (200, 206)
        return answer

    async def look() -> None:
        told = (await part("-0")).headers["content-range"]
        if int(told.rpartition("/")[2]) > len(got):
            got.extend((await part(f"{len(got)}-")).content)

    async def write(line: bytes) -> None:
        await panel.write("stderr.txt", line)
        written.extend(line)

    async def caught_up() -> bool:
        await look()
        assert written.startswith(got)
        return got == written

    await write(b"0\n")
    await panel.until_answered()
    for number in range(1, 30):
        await write(f"line {number} é\n".encode())
        await look()
    await until(caught_up)
    await write(b"last\n")
    await panel.site.cluster.finish(panel.container)
    await panel.until_left()
    await until(caught_up)


async def test_a_file_that_shrinks_is_never_mixed(panel: Panel) -> None:
    """What was read of it before is not what it holds now: left to the controller, or read anew."""
    old, new = b"0123456789\n", b"abc\n"
    await panel.write("stdout.txt", old)
    await panel.until_answered()

    async def shows(*contents: bytes) -> bool:
        answer = await panel.ask("/stdout.txt")
        assert answer.status_code == LEFT or answer.content in (old, new)
        return (b"" if answer.status_code == LEFT else answer.content) in contents

    await until(lambda: shows(old))
    panel.site.cluster.logs.truncate(panel.container.uuid, "stdout.txt")
    await panel.write("stdout.txt", new)
    await until(lambda: shows(b"", new))


async def test_what_left_the_stream_is_read_of_arvados(panel: Panel) -> None:
    """No gap: the same bytes from the same offset."""
    await panel.write("stdout.txt", b"first line\n")
    await panel.until_answered()
    subject = f"arvados.logs.{panel.container.uuid}.>"

    async def stored() -> bool:
        return await panel.site.nats.last(streams.LOGS, subject) is not None

    await until(stored)
    await panel.site.nats.js_api(f"STREAM.PURGE.{streams.LOGS}", {"filter": subject})
    await asyncio.sleep(2)
    assert (await panel.both("/stdout.txt", range="bytes=2-6")).content == b"rst l"


async def test_many_panels_cost_the_node_what_one_does(site: Site, alice: Actor) -> None:
    """Questions of fifty panels at once become one listing and one read."""
    async with panel_of(site, alice) as panel:
        await panel.write("stdout.txt", b"line\n")
        await panel.until_answered()
        await asyncio.sleep(2)
        log = "/arvados/v1/container_requests/{uuid}/log"
        calls = site.backend.faults.calls
        before = calls[f"GET {log}"] + calls[f"PROPFIND {log}"]
        listings = await asyncio.gather(*(panel.ask(method="PROPFIND") for _ in range(50)))
        parts = await asyncio.gather(*(panel.ask("/stdout.txt") for _ in range(50)))
        assert {answer.status_code for answer in listings} == {207}
        assert {answer.content for answer in parts} == {b"line\n"}
        assert calls[f"GET {log}"] + calls[f"PROPFIND {log}"] - before < 50
