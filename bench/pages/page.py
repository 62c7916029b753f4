# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The page in a real Chromium: how long people wait, and whether anything stutters.

`big`: one saved log of a gigabyte. Milliseconds until its end, its beginning and a line found in
its middle are on the screen, from the navigation, the click, the key; CPU seconds of wsproxy for
finding; megabytes of the tab's heap, opened and at the end. `seven`: 100,000 lines in each of seven
files; CPU milliseconds of script, the longest task, until all are shown. `rate`: so many lines a
second, followed and then with lines selected; milliseconds between frames, lines that came, whether
the selection stayed. `line`: 50 MB in one line; milliseconds until what follows it is on the
screen, and until another tab is. `plots`: a gigabyte of statistics; milliseconds until the plots
are of all of them, from the first to the last, the longest task meanwhile, and megabytes of the
tab's heap before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from playwright.async_api import Page, async_playwright

from bench import figures, processes
from bench.figures import Figures
from bench.pages import statistics
from bench.pages.chromium import PATIENCE, Side, frames, heap, seen
from bench.pages.statistics import Statistics
from bench.worlds import cluster as world
from bench.worlds.cluster import World
from sandbox import stack
from sandbox.logs.log_files import GrowingFile, NumberedLines, Source
from sandbox.model.records import Record

_PROGRAMS = ("chromium", "google-chrome", "chromium-browser")
_STAMP = "2026-11-30T{:02d}:{:02d}:{:02d}.{:03d}000000Z line {:07d} of {}\n"
_WIDTH = 100
_LONG = 50_000_000


async def _saved(made: World, files: dict[str, Source]) -> Record:
    """A request whose container ended long ago: Arvados alone has its log."""
    cluster = made.sandbox.cluster
    request = await cluster.container_request("measured", owner=cluster.root, by=cluster.root)
    container = await cluster.run(request)
    for name, content in files.items():
        cluster.logs.put(container.uuid, name, content)
    await cluster.finish(container)
    await made.sandbox.backend.rows(
        "UPDATE containers SET finished_at = finished_at - interval '3 h' WHERE uuid = $1",
        container.uuid,
    )
    return request


def _lines_of(options: argparse.Namespace) -> NumberedLines:
    return NumberedLines(options.megabytes * 1_000_000 // _WIDTH, _WIDTH)


async def _big(side: Side) -> Figures:
    source = _lines_of(side.options)
    page = await side.tab()
    await side.open(page, side.saved["big"])
    found: Figures = {"end_ms": await seen(page, f"{source.lines - 1:010d}")}
    found["opened_mb"] = await heap(page)
    found["beginning_ms"] = await seen(page, f"{0:010d}", click="#beginning")
    proxy = side.services.services["wsproxy"].process
    pid = proxy.pid if proxy else 0
    cpu = processes.cpu_seconds(pid)
    middle = f"{source.lines // 2:010d}"
    found["find_ms"] = await seen(page, middle, ".picked", sought=middle)
    found["find_proxy_cpu_s"] = processes.cpu_seconds(pid) - cpu
    await page.locator("#stop").wait_for(state="hidden", timeout=PATIENCE * 1000)
    await seen(page, f"{source.lines - 1:010d}", click="#follow")
    found["after_mb"] = await heap(page)
    return found


def _stamped(lines: int, name: str) -> bytes:
    parts = (
        _STAMP.format(n // 36_000 % 24, n // 600 % 60, n // 10 % 60, n % 10 * 100, n, name)
        for n in range(lines)
    )
    return "".join(parts).encode()


async def _seven(side: Side) -> Figures:
    lines = side.options.lines
    page = await side.tab()
    session = await page.context.new_cdp_session(page)
    # CPU time of the thread, whatever else the machine does.
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})
    await side.open(page, side.saved["seven"], "&view=all")
    shown = await seen(page, f"line {lines - 1:07d} of file-6")
    await page.get_by_text(f"{7 * 2000:,} lines").wait_for(timeout=PATIENCE * 1000)
    told = await session.send("Performance.getMetrics")
    metrics = {one["name"]: one["value"] for one in told["metrics"]}
    return {
        "shown_ms": shown,
        "script_ms": metrics["ScriptDuration"] * 1000,
        "task_ms": metrics["TaskDuration"] * 1000,
        "longest_ms": float(await page.evaluate("longest")),
    }


async def _rate(side: Side) -> Figures:
    cluster, options = side.made.sandbox.cluster, side.options
    request = await cluster.container_request("measured", owner=cluster.root, by=cluster.root)
    container = await cluster.run(request)
    written = 0

    async def write() -> None:
        nonlocal written
        began = time.monotonic()
        while True:
            due = int((time.monotonic() - began) * options.rate)
            text = "".join(f"line {n:07d} {'.' * 70}\n" for n in range(written, due))
            cluster.logs.append(container.uuid, "stdout.txt", text.encode())
            written = max(written, due)
            await asyncio.sleep(0.05)

    writing = asyncio.create_task(write())
    try:
        page = await side.tab()
        await side.open(page, request)
        await seen(page, "line 0")
        await asyncio.sleep(2)  # what was opened is not measured
        found = await frames(page, options.seconds / 2, "follow_")
        return found | await _selected(page, options.seconds / 2)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await cluster.finish(container)


async def _selected(page: Page, seconds: float) -> Figures:
    """Three lines are selected while more come."""
    await page.locator("#log .cm-line").nth(5).click()
    for _ in range(2):
        await page.keyboard.press("Shift+ArrowDown")
    before = await _copied(page)
    count = page.locator("#count")
    lines = -_number(await count.inner_text())
    found = await frames(page, seconds, "selected_")
    lines += _number(await count.inner_text())
    kept = before.count("\n") == 2 and await _copied(page) == before
    return {**found, "selected_lines_per_second": lines / seconds, "selection_kept": float(kept)}


async def _copied(page: Page) -> str:
    await page.keyboard.press("Control+c")
    return str(await page.evaluate("navigator.clipboard.readText()"))


def _number(text: str) -> int:
    return int(text.partition(" ")[0].replace(",", ""))


async def _line(side: Side) -> Figures:
    page = await side.tab()
    await side.open(page, side.saved["line"])
    shown = await seen(page, "after it")
    tab = "#files [data-key='stderr.txt']"
    return {"shown_ms": shown, "tab_ms": await seen(page, "another file", click=tab)}


async def _plots(side: Side) -> Figures:
    page = await side.tab()
    await side.open(page, side.saved["plots"])
    await seen(page, "began")
    found: Figures = {"opened_mb": await heap(page)}
    await page.evaluate("longest = 0")
    began = time.monotonic()
    await page.locator("#plot").click()
    told = page.locator("#plots [role=status]")
    await told.filter(has_text="reading crunchstat.txt").wait_for()
    await told.filter(has_text=re.compile("^$")).wait_for(
        state="attached", timeout=2 * PATIENCE * 1000
    )
    found["all_ms"] = (time.monotonic() - began) * 1000
    await page.locator("#plots summary").click()
    memory = page.get_by_role("rowheader", name="memory", exact=True).locator("xpath=..")
    most = await memory.get_by_role("cell").last.inner_text()
    assert most == "10.0 GB", f"its first line is not there: {most}"
    found["longest_ms"] = float(await page.evaluate("longest"))
    found["after_mb"] = await heap(page)
    return found


PARTS: dict[str, Callable[[Side], Awaitable[Figures]]] = {
    "big": _big, "seven": _seven, "rate": _rate, "line": _line, "plots": _plots,
}  # fmt: skip


def _files(options: argparse.Namespace, part: str) -> dict[str, Source]:
    """What Arvados has saved for a part."""
    if part == "big":
        return {"stdout.txt": _lines_of(options)}
    if part == "seven":
        names = [f"file-{n}" for n in range(7)]
        return {f"{name}.txt": GrowingFile(_stamped(options.lines, name)) for name in names}
    if part == "plots":
        figures_of = Statistics(options.megabytes * 1_000_000 // statistics.WIDTH)
        return {"crunchstat.txt": figures_of, "stderr.txt": GrowingFile(b"began\n")}
    text = b"begin " + b"x" * _LONG + b"\nafter it\n"
    return {"stdout.txt": GrowingFile(text), "stderr.txt": GrowingFile(b"another file\n")}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Each part in a tab of its own."""
    report: dict[str, Any] = {}
    async with AsyncExitStack() as exits:
        made = await exits.enter_async_context(world.world(1, 0))
        parts = options.parts.split(",")
        saved = {
            name: await _saved(made, _files(options, name)) for name in parts if name != "rate"
        }
        services = await exits.enter_async_context(stack.beside(made.sandbox))
        playwright = await exits.enter_async_context(async_playwright())
        program = next(path for name in _PROGRAMS if (path := shutil.which(name)))
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        exits.push_async_callback(browser.close)
        side = Side(made, services, browser, options, saved)
        for name in parts:
            found = await PARTS[name](side)
            report |= {f"{name}_{key}": figures.rounded(value) for key, value in found.items()}
    return report


SHORT = {"megabytes": 20, "lines": 3000, "seconds": 4}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: which parts, and how much."""
    parser.add_argument("--parts", default=",".join(PARTS), help="which, by commas")
    parser.add_argument("--megabytes", type=int, default=1000, help="of the big log")
    parser.add_argument("--lines", type=int, default=100_000, help="of each of the seven files")
    parser.add_argument("--rate", type=float, default=2000.0, help="lines a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of lines that come")
