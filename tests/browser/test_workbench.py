# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A page that reads as Workbench does, with workbench.js in it and without.

What it took until the page showed each thing is printed as a table (`pytest -s`);
WORKBENCH_CUT_SECONDS=10 keeps the line cut, and wsproxy away, for as long.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from arvados_nats.admin.init import machine
from sandbox.model.actors import Actor
from sandbox.sandbox import MANAGEMENT_TOKEN
from sandbox.stack import Stack
from tests.support.fronts import nginx, tcp_line, workbench
from tests.support.fronts.tcp_line import TcpLine
from tests.support.fronts.workbench import Workbench

SIGN, LINK, GONE = "#arvados-nats-sign", "#arvados-nats-log", "#arvados-nats-gone"
SOON, NEVER_MS = 60_000, 3_000
CUT_SECONDS = float(os.environ.get("WORKBENCH_CUT_SECONDS", "0"))
_numbers = itertools.count(1)

Pair = tuple[Page, Page]


@dataclass(slots=True)
class Times:
    """Seconds until the page with the script, and the one without, showed each thing."""

    rows: list[tuple[str, float, float | None]] = field(default_factory=list)

    def table(self) -> str:
        lines = [f"{'':<48}{'with':>8}{'without':>10}"]
        for what, ours, plain in self.rows:
            lines.append(f"{what:<48}{ours:8.2f}{'never' if plain is None else f'{plain:.2f}':>10}")
        return "\n".join(lines)


@dataclass(slots=True)
class Desk:
    """A browser in front of Workbench, whose socket goes over a line that can be cut."""

    stack: Stack
    line: TcpLine
    workbench: Workbench
    browser: BrowserContext
    user: Actor
    times: Times

    async def open(self, path: str, *, script: bool = True) -> Page:
        """A page that has subscribed."""
        tab = await self.browser.new_page()
        websocket = f"ws://{self.line.address}/websocket"
        line = (
            f'<script src="{self.stack.page_url}/workbench.js"'
            f' data-websocket="{websocket}"></script>'
        )
        api = self.stack.sandbox.api.url
        await tab.goto(
            self.workbench.page(
                path,
                websocket=websocket,
                api=api,
                token=self.user.token,
                script=line if script else "",
            )
        )
        await tab.wait_for_function("() => seen.sockets === 1 && seen.shown", timeout=SOON)
        return tab

    async def shown(self, tab: Page, condition: str) -> float:
        """What the page shows comes to be so; seconds until then."""
        begun = time.monotonic()
        await tab.wait_for_function(f"() => {condition}", timeout=SOON)
        return time.monotonic() - begun

    async def both(self, tabs: Pair, condition: str, what: str) -> None:
        """It comes to be so on the page with the script and on the one without."""
        ours, plain = await asyncio.gather(*(self.shown(tab, condition) for tab in tabs))
        self.times.rows.append((what, ours, plain))

    async def only(self, tabs: Pair, condition: str, what: str) -> None:
        """It comes to be so on the page with the script, and not on the one without."""
        took = await self.shown(tabs[0], condition)
        assert not await tabs[1].evaluate(f"Boolean({condition})")
        self.times.rows.append((what, took, None))

    async def pair(self, path: str) -> Pair:
        """A page with the script, and one without."""
        return await self.open(path), await self.open(path, script=False)


@pytest.fixture(scope="module")
def front() -> Iterator[Workbench]:
    with workbench.run() as running:
        yield running


@pytest.fixture(scope="module")
def times() -> Iterator[Times]:
    kept = Times()
    yield kept
    print(f"\n{kept.table()}")  # noqa: T201  (what it was measured for)


@pytest.fixture
async def desk(
    stack: Stack, browser: Browser, front: Workbench, times: Times
) -> AsyncIterator[Desk]:
    user = await stack.sandbox.cluster.user(f"workbench {next(_numbers)}")
    context = await browser.new_context(ignore_https_errors=True)
    async with tcp_line.to(stack.proxy_port) as line:
        yield Desk(stack, line, front, context, user, times)
        for tab in context.pages:
            assert await tab.evaluate("seen.errors") == []
        await context.close()


async def renamed(desk: Desk, collection: Any, name: str) -> None:
    await desk.stack.sandbox.cluster.update(collection, {"name": name}, desk.user)


async def test_a_cut_line_comes_back_with_what_was_missed(desk: Desk) -> None:
    """With the script the change made meanwhile is shown, and a sign stood as long as the line was
    cut. Without it the page is deaf from then on, and shows nothing of that."""
    made = await desk.stack.sandbox.cluster.collection("first", owner=desk.user)
    tab, plain = tabs = await desk.pair(f"collections/{made.uuid}")
    assert await tab.evaluate("seen.genuine && socket.readyState === WebSocket.OPEN")
    await renamed(desk, made, "second")
    await desk.both(tabs, "seen.shown.name === 'second'", "renamed")
    await expect(tab.locator(SIGN)).to_have_count(0)
    desk.line.cut()
    await expect(tab.locator(SIGN)).to_contain_text("connecting again", timeout=SOON)
    assert await tab.evaluate("socket.readyState === WebSocket.CONNECTING")
    await renamed(desk, made, "third")
    await asyncio.sleep(CUT_SECONDS)
    desk.line.mend()
    await desk.only(tabs, "seen.shown.name === 'third'", "path cut and mended")
    await expect(tab.locator(SIGN)).to_have_count(0)
    assert await tab.evaluate("[seen.sockets, seen.closed]") == [1, []]
    assert await plain.evaluate("[seen.shown.name, seen.closed]") == ["second", [1006]]


async def test_a_restart_before_any_row_is_caught_up_too(desk: Desk) -> None:
    """No row came that the subscription could name: the page is told to look at what it shows."""
    made = await desk.stack.sandbox.cluster.collection("first", owner=desk.user)
    tabs = await desk.pair(f"collections/{made.uuid}")
    proxy = desk.stack.services["wsproxy"]
    await proxy.kill()
    await renamed(desk, made, "second")
    await asyncio.sleep(CUT_SECONDS)
    await proxy.start()
    await desk.only(tabs, "seen.shown.name === 'second'", "wsproxy restarted")
    await renamed(desk, made, "third")
    await desk.only(tabs, "seen.shown.name === 'third'", "renamed after that")


async def test_a_dead_token_ends_it(desk: Desk) -> None:
    """The page's socket closes, the sign says so, and nobody knocks again. Without the script the
    page shows nothing of that."""
    cluster = desk.stack.sandbox.cluster
    made = await cluster.collection("first", owner=desk.user)
    tab, plain = tabs = await desk.pair(f"collections/{made.uuid}")
    await cluster.logout(desk.user)
    sign = f"document.querySelector('{SIGN}')?.textContent.includes('load the page again')"
    await desk.only(tabs, sign, "token deleted")
    assert await tab.evaluate("[seen.closed, socket.readyState]") == [[4501], 3]
    await desk.shown(plain, "seen.closed.length")
    connections = desk.line.connections
    await tab.wait_for_timeout(NEVER_MS)
    assert desk.line.connections == connections


async def test_what_a_container_says_is_seen_at_its_process(desk: Desk) -> None:
    """A warning changes the container's row alone: with the script the page shows it, as it shows
    cancelling and the next attempt; without it nothing comes. A link leads to the live log."""
    cluster = desk.stack.sandbox.cluster
    request = await cluster.container_request("job", owner=desk.user, container_count_max=3)
    first = await cluster.run(request)
    tab, _ = tabs = await desk.pair(f"processes/{request.uuid}")
    link = await tab.locator(LINK).get_attribute("href")
    assert link == f"http://{desk.line.address}/#request={request.uuid}"
    for text in ("out of memory soon", "out of memory now"):
        await cluster.progress(first, warning=text)
        warned = f"seen.shown.container.runtime_status.warning === '{text}'"
        await desk.only(tabs, warned, "container warned")
    await cluster.cancel(first, "node died")
    retried = f"seen.shown.request.container_uuid !== '{first.uuid}'"
    await desk.both(tabs, retried, "container cancelled, to be tried again")
    second = await cluster.run(request)
    await desk.only(tabs, "seen.shown.container.state === 'Running'", "next attempt runs")
    await cluster.progress(second, warning="again")
    warned = "seen.shown.container.runtime_status.warning === 'again'"
    await desk.only(tabs, warned, "next attempt warned")
    await cluster.finish(second)
    await desk.both(tabs, "seen.shown.container.state === 'Complete'", "complete")


async def test_what_moves_out_of_reach_is_seen_to_have_gone(desk: Desk) -> None:
    """The row that takes the object away makes the page look, and there is nothing any more. Where
    a share is withdrawn no row of the object comes, and only with the script does the page look.
    Workbench itself goes on showing what is not there any more, so the script says it."""
    cluster = desk.stack.sandbox.cluster
    owner = await cluster.user(f"owner {next(_numbers)}")
    shared, private = await cluster.project(owner=owner), await cluster.project(owner=owner)
    await cluster.share(shared, desk.user)
    one = await cluster.collection("open", owner=shared, by=owner)
    other = await cluster.collection("open too", owner=shared, by=owner)
    moved = await desk.pair(f"collections/{one.uuid}")
    unshared = await desk.pair(f"collections/{other.uuid}")
    await cluster.move(one, private, by=owner)
    await desk.both(moved, "seen.missing", "collection moved out of reach")
    said = f"document.querySelector('{GONE}')"
    await desk.only(moved, said, "and the page says that it cannot be read")
    assert not await unshared[0].evaluate("seen.missing")
    await cluster.unshare(shared, desk.user)
    await desk.only(unshared, "seen.missing", "project of a collection unshared")
    await desk.only(unshared, said, "and the page says that it cannot be read")


async def test_other_sockets_and_pages_are_left_alone(desk: Desk) -> None:
    """Another address or query, a subprotocol: the browser's own. The link is of processes."""
    made = await desk.stack.sandbox.cluster.collection("first", owner=desk.user)
    tab = await desk.open(f"collections/{made.uuid}")
    kinds = await tab.evaluate(
        """() => {
            const base = socket.url.split("?")[0];
            const wanted = [[base], [`${base}?api_token=`], [`${base}?api_token=x&y=1`],
                [`${base}/?api_token=x`], [`${base}?api_token=x`, "wamp"],
                [base.replace("/websocket", "/v1/stream")],
                [base.replace("127.0.0.1", "localhost")]];
            const own = Object.getPrototypeOf(socket);
            return wanted.map((given) => Object.getPrototypeOf(new WebSocket(...given)) === own);
        }"""
    )
    assert kinds == [False] * 7
    assert await tab.evaluate("Object.getPrototypeOf(socket) !== WebSocket.prototype")
    assert await tab.locator(LINK).count() == 0


async def test_the_script_is_kept_and_asked_for_again(stack: Stack) -> None:
    """Some minutes without a question, and longer where nobody answers; then only what changed."""
    async with httpx.AsyncClient(base_url=stack.page_url) as http:
        script = await http.get("/workbench.js")
        assert script.status_code == 200
        assert script.headers["content-type"].startswith("text/javascript")
        assert "max-age=300" in script.headers["cache-control"]
        assert "stale-if-error" in script.headers["cache-control"]
        assert script.headers["access-control-allow-origin"] == "*"
        again = await http.get("/workbench.js", headers={"if-none-match": script.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await http.post("/workbench.js")).status_code == 405


async def test_the_lines_of_nginx_are_enough(
    stack: Stack, desk: Desk, front: Workbench, tmp_path: Path
) -> None:
    """In Workbench's site they bring the script, in the controller's the log panel's bytes: live,
    over the end, and as they are in Keep; most of them from wsproxy."""
    for folder in ("workbench", "controller"):
        (tmp_path / folder).mkdir()
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("job", owner=desk.user)
    container = await cluster.run(request)
    await cluster.write_log(container, "stdout.txt", b"one\n")
    await cluster.checkpoint(container)
    websocket, page = f"ws://{desk.line.address}/websocket", f"processes/{request.uuid}"
    async with (
        nginx.before_workbench(front.url, stack.page_url, websocket, tmp_path / "workbench") as url,
        nginx.before_controller(
            stack.sandbox.api.url, stack.page_url, tmp_path / "controller"
        ) as api,
    ):
        tab = await desk.browser.new_page()
        told = {"websocket": websocket, "api": api, "token": desk.user.token}
        await tab.goto(Workbench(url).page(page, **told))
        await expect(tab.locator(LINK)).to_have_count(1)
        await desk.shown(tab, "seen.logs['stdout.txt'] === 'one\\n'")
        await cluster.write_log(container, "stdout.txt", "zwölf\n".encode())
        await desk.shown(tab, "seen.logs['stdout.txt'] === 'one\\nzwölf\\n'")
        assert await answered_by(stack) > 0
        await cluster.write_log(container, "stdout.txt", b"last\n")
        await cluster.finish(container)
        await desk.shown(tab, "seen.logs['stdout.txt'] === 'one\\nzwölf\\nlast\\n'")


async def test_a_page_that_a_browser_has_comes_anew_with_the_lines(
    front: Workbench, tmp_path: Path
) -> None:
    """The file is the same, and would be answered with 304: without the script for as long as
    Workbench is not upgraded. The page with the script is never taken for the same later."""
    for folder in ("www", "before", "after"):
        (tmp_path / folder).mkdir()
    (tmp_path / "www" / "page.html").write_text("<head></head>", encoding="utf-8")
    served = f"location = /page.html {{ root {tmp_path / 'www'}; }}"
    lines = served + machine.text("workbench.conf")
    beside = "upstream arvados-nats-wsproxy { server 127.0.0.1:1; }"
    async with (
        nginx.in_front(front.url, tmp_path / "before", inside=served) as before,
        nginx.in_front(front.url, tmp_path / "after", beside=beside, inside=lines) as after,
        httpx.AsyncClient() as http,
    ):
        had = (await http.get(f"{before}/page.html")).headers
        known = {"if-none-match": had["etag"], "if-modified-since": had["last-modified"]}
        answer = await http.get(f"{after}/page.html", headers=known)
    assert answer.status_code == 200
    assert "/workbench.js" in answer.text
    assert not {"etag", "last-modified"} & answer.headers.keys()


async def answered_by(stack: Stack) -> float:
    """Questions for log folders that wsproxy has answered itself."""
    token = {"Authorization": f"Bearer {MANAGEMENT_TOKEN}"}
    async with httpx.AsyncClient(base_url=stack.page_url, headers=token) as http:
        text = (await http.get("/metrics")).text
    found = re.search(r'log_folder_requests_total\{outcome="answered"\} ([\d.]+)', text)
    return float(found[1]) if found else 0.0
