# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Workbench tabs on one running container: what they cost its compute node, and how late they are.

Each tab asks every 2 s for the listing of the log folder and then for what is new of each file, as
Workbench does. `controller`: at the controller, where every question goes to the node's gateway.
`wsproxy`: with wsproxy before it, as docs/workbench.md says; what it leaves goes to the controller.
`questions_per_second` are those of the tabs, `gateway_per_second` all that came to the gateway,
the container log publisher's own included; `ratio_gateway_requests` is the second over the first
with wsproxy, since without it they are the same. Delays are from the write to the tab, of each new
piece's first line, which has waited longest. `exact`: every tab has the log from its first byte;
`left`: questions that went on to the controller; `failed`: those that were cut without an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from array import array
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import httpx

from bench import figures, processes
from bench.figures import Figures
from bench.worlds import cluster as world
from bench.worlds.cluster import World
from sandbox import stack
from sandbox.logs.log_files import NumberedLines
from sandbox.stack import Stack
from wsproxy.log_folder.routes import LEFT

FILES = ("stdout.txt", "crunchstat.txt")
_WIDTH = 100
_POLL = 2.0
_WARM = 4.0
_GATEWAY = ("GET", "PROPFIND")
_LOG = "/arvados/v1/container_requests/{uuid}/log"
_SIZE = ".//{DAV:}getcontentlength"


@dataclass(slots=True)
class Tabs:
    """All of them: what they asked, and what came when."""

    http: httpx.AsyncClient
    controller: str
    first: str
    """Whom they ask first."""
    folder: str
    lines: NumberedLines = field(default_factory=lambda: NumberedLines(10**9, _WIDTH))
    asked: int = 0
    left: int = 0
    failed: int = 0
    wrong: int = 0
    seen: list[tuple[float, int]] = field(default_factory=list)

    async def ask(self, method: str, below: str, headers: dict[str, str]) -> httpx.Response:
        """A question, and the controller's answer where it is left to it."""
        self.asked += 1
        path = f"{self.folder}{below}"
        answer = await self.http.request(method, f"{self.first}{path}", headers=headers)
        if answer.status_code == LEFT:
            self.left += 1
            answer = await self.http.request(method, f"{self.controller}{path}", headers=headers)
        return answer

    async def tab(self, number: int, tabs: int, token: str) -> None:
        """One tab, until it is closed. What failed it asks again at its time, as a page does."""
        last = dict.fromkeys(FILES, 0)
        await asyncio.sleep(number / tabs * _POLL)
        while True:
            began = time.monotonic()
            try:
                await self.look(last, {"Authorization": f"Bearer {token}"})
            except httpx.TransportError:
                self.failed += 1
            await asyncio.sleep(max(0.0, began + _POLL - time.monotonic()))

    async def look(self, last: dict[str, int], headers: dict[str, str]) -> None:
        """What there is of the log, and what is new of each file."""
        listing = await self.ask("PROPFIND", "", headers)
        for name, size in _sizes(listing).items() if listing.status_code == 207 else ():
            start = last.get(name, size)
            if size <= start:
                continue
            asked = {**headers, "Range": f"bytes={start}-{size - 1}"}
            part = await self.ask("GET", f"/{name}", asked)
            if part.status_code != 206:
                continue
            self.wrong += part.content != self.lines.read(start, size)
            last[name] = size
            if name == FILES[0]:
                self.seen.append((time.monotonic(), start // _WIDTH))


def _sizes(listing: httpx.Response) -> dict[str, int]:
    found = {}
    for response in ElementTree.fromstring(listing.content):
        size = response.findtext(_SIZE)
        if size is not None:
            found[str(response.findtext("{DAV:}href")).rpartition("/")[2]] = int(size)
    return found


async def _side(made: World, services: Stack, first: str, options: argparse.Namespace) -> Figures:
    """A container of its own, with all tabs on it."""
    name = first.rpartition(":")[2]
    cluster, faults = made.sandbox.cluster, made.sandbox.backend.faults
    project = await cluster.project(name, owner=cluster.root)
    await cluster.share(project, cluster.config.all_users)
    request = await cluster.container_request(name, owner=project, by=cluster.root)
    container = await cluster.run(request)
    written: array[float] = array("d")

    def write() -> None:
        data = NumberedLines(10**9, _WIDTH).read(len(written) * _WIDTH, (len(written) + 1) * _WIDTH)
        for file in FILES:
            cluster.logs.append(container.uuid, file, data)
        written.append(time.monotonic())

    def gateway() -> int:
        return sum(faults.calls[f"{method} {_LOG}"] for method in _GATEWAY)

    limits = httpx.Limits(max_connections=options.tabs, keepalive_expiry=1)
    async with httpx.AsyncClient(limits=limits, timeout=30) as http:
        folder = f"/arvados/v1/container_requests/{request.uuid}/log/{container.uuid}"
        tabs = Tabs(http, made.sandbox.api.url, first, folder)
        users = [user.token for user in made.users]
        tasks = [
            asyncio.create_task(tabs.tab(number, options.tabs, users[number % len(users)]))
            for number in range(options.tabs)
        ]
        await _writing(write, options.rate, _WARM)
        tabs.seen.clear()
        proxy = services.services["wsproxy"].process
        pid = proxy.pid if proxy else 0
        cpu = processes.cpu_seconds(pid)
        asked, came, began = tabs.asked, gateway(), time.monotonic()
        await _writing(write, options.rate, options.seconds)
        took, asked, came = time.monotonic() - began, tabs.asked - asked, gateway() - came
        cpu = processes.cpu_seconds(pid) - cpu
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended  # a tab that has died asks nothing, which would look cheap
    await cluster.finish(container)
    stack.require(services)
    late = [moment - written[line] for moment, line in tabs.seen if line < len(written)]
    return {
        **figures.delays(late),
        "questions_per_second": asked / took,
        "gateway_per_second": came / took,
        "proxy_cpu_ms_per_question": cpu / asked * 1000 if asked else 0.0,
        "left": tabs.left,
        "failed": tabs.failed,
        "exact": float(not tabs.wrong),
    }


async def _writing(write: Callable[[], None], rate: float, seconds: float) -> None:
    began, count = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        while count < elapsed * rate:
            write()
            count += 1
        await asyncio.sleep(0.5 / rate)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides, one after the other."""
    report: dict[str, Any] = {"tabs": options.tabs}
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(options.users, 0))
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        for name, first in (("wsproxy", services.page_url), ("controller", made.sandbox.api.url)):
            report |= figures.medians([await _side(made, services, first, options)], f"{name}_")
    asked = report["wsproxy_questions_per_second"]
    report["ratio_gateway_requests"] = (
        round(report["wsproxy_gateway_per_second"] / asked, 4) if asked else None
    )
    return report


SHORT = {"tabs": 20, "seconds": 4}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: tabs, users, lines a second, length."""
    parser.add_argument("--tabs", type=int, default=200, help="of all users together")
    parser.add_argument("--users", type=int, default=20, help="with a token each")
    parser.add_argument("--rate", type=float, default=5.0, help="lines a second of each file")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each side")
