# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Pictures of every state of the page, in four sizes, light and dark.

ARVADOS_NATS_PICTURES=<folder> makes them all, to be looked at; without it two are taken, to see
that they can be. What docs/pictures holds comes into a folder `docs` of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, WebSocketRoute, expect

from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.stack import Stack
from tests.browser.test_access import faults
from tests.browser.test_page import WIDER

FOLDER = os.environ.get("ARVADOS_NATS_PICTURES")
SIZES = {"wide": (1440, 900), "middle": (1024, 768), "phone": (390, 844), "zoomed": (720, 450)}
THEMES = ("light", "dark")
_STAMP = "2026-11-30T01:{:02d}:{:02d}.000000000Z "
_OPEN = "#opener"


@dataclass(frozen=True, slots=True)
class Sights:
    """What there is to be seen."""

    user: Actor
    project: Record
    failed: Record
    running: Record
    queued: Record
    held: Record
    empty: Record
    long: Record
    done: Record
    cancelled: Record
    many: Record
    strange: Record
    hidden: Record
    stranger: Actor


def _lines(minute: int, texts: list[str]) -> bytes:
    stamped = (f"{_STAMP.format(minute + n // 60, n % 60)}{text}\n" for n, text in enumerate(texts))
    return "".join(stamped).encode()


def _statistics() -> bytes:
    made = ""
    for n in range(60):
        stamp = _STAMP.format(n, 10)
        used = 300_000_000 + n * 9_000_000
        made += (
            f"{stamp}mem 0 cache 0 swap 1 pgmajfault {used} rss\n"
            f"{stamp}cpu 90.0 user 4.0 sys 4.00 cpus -- interval 10.0000 seconds"
            f" {20 + n % 7}.5 user 1.2 sys\n"
            f"{stamp}net:keep0 9 tx 9 rx -- interval 10.0000 seconds {n * 900} tx {n * 90000} rx\n"
            f"{stamp}statfs 9000000000 available {used * 2} used 20000000000 total\n"
        )
    return made.encode()


async def _running(stack: Stack, user: Actor, project: Record) -> Record:
    cluster = stack.sandbox.cluster
    request = await cluster.container_request(
        "align-reads", owner=project, by=user, runtime_constraints={"ram": 2**30, "vcpus": 4}
    )
    container = await cluster.run(request)
    steps = [f"sample {n:04d} \x1b[32mok\x1b[0m, {n * 7 % 100} % mapped" for n in range(60)]
    await cluster.write_log(container, "stdout.txt", _lines(2, steps))
    await cluster.write_log(container, "stderr.txt", _lines(3, ["WARNING: low coverage in chr7"]))
    await cluster.write_log(container, "crunchstat.txt", _statistics())
    await cluster.progress(container, 0.42, activity="aligning chromosome 7")
    return request


async def _failed(stack: Stack, user: Actor, project: Record) -> Record:
    cluster = stack.sandbox.cluster
    request = await cluster.container_request(
        "call-variants", owner=project, by=user, container_count_max=2
    )
    first = await cluster.run(request)
    await cluster.cancel(first)
    container = await cluster.run(request)
    steps = [f"sample {n:04d} \x1b[32mok\x1b[0m" for n in range(900)]
    await cluster.write_log(container, "stdout.txt", _lines(0, steps))
    said = ["WARNING: disk nearly full", "\x1b[31mERROR\x1b[0m: cannot write /out/variants.vcf"]
    await cluster.write_log(container, "stderr.txt", _lines(15, said))
    await cluster.progress(
        container, 0.9, error="The container ran out of disk", errorDetail="/out has 0 bytes left"
    )
    await cluster.finish(container, exit_code=1)
    return request


async def _done(stack: Stack, user: Actor) -> Record:
    """It took some time, cost something, and left a line that is very long."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("annotate", owner=user, by=user)
    container = await cluster.run(request)
    said = ["began", "x" * 300_000, "all done"]
    await cluster.write_log(container, "stderr.txt", _lines(1, said))
    await cluster.finish(container, cost=1.25)
    return request


async def _many(stack: Stack, user: Actor) -> Record:
    cluster = stack.sandbox.cluster
    name = "a workflow step with a name that is rather long, as those of subworkflows are"
    request = await cluster.container_request(name, owner=user, by=user)
    container = await cluster.run(request)
    names = ("stderr", "stdout", "crunch-run", "crunchstat", "hoststat", "arv-mount", "node-info")
    lines = [f"line {n}" for n in range(9)]
    for n, name in enumerate((*names, "keepstore", "usage_report")):
        await cluster.write_log(container, f"{name}.txt", _lines(n, lines))
    return request


async def _strange(stack: Stack) -> tuple[Actor, Record]:
    """Names and words as long as can be, which would turn what follows them around; they are
    somebody's own, and so not in the list of others."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("stranger")
    name = "\u202eevil\u2066 " + "name-without-end-" * 14
    request = await cluster.container_request(name, owner=user, by=user)
    container = await cluster.run(request)
    file = "a-file-with-a-name-that-is-longer-than-any-tab-should-ever-be.txt"
    await cluster.write_log(container, file, _lines(1, ["\u202etxt.exe", "日本語 " * 40]))
    await cluster.progress(container, 0.1, warning="\u202e" + "warns" * 200)
    return user, request


@pytest.fixture(scope="module")
async def sights(stack: Stack) -> Sights:
    """A project of somebody who has processes of every kind."""
    cluster = stack.sandbox.cluster
    user = await cluster.user("photographer")
    project = await cluster.project("Genome study", owner=user)
    request = cluster.container_request
    failed = await _failed(stack, user, project)
    empty = await request("qc-report", owner=project, by=user)
    await cluster.run(empty)
    long = await request("merge-bam", owner=user)
    merging = await cluster.run(long)
    text = "".join(f"record {n:06d} {'.' * 80}\n" for n in range(40_000))
    await cluster.write_log(merging, "stdout.txt", text.encode())
    running = await _running(stack, user, project)
    queued = await request("index-reference", owner=user)
    held = await request("archive", owner=user, priority=0)
    done = await _done(stack, user)
    cancelled = await request("too-large", owner=user, by=user, container_count_max=1)
    await cluster.cancel(await cluster.run(cancelled))
    many = await _many(stack, user)
    stranger, strange = await _strange(stack)
    hidden = await request("somebody else's", owner=await cluster.user("other"))
    return Sights(
        user,
        project,
        failed,
        running,
        queued,
        held,
        empty,
        long,
        done,
        cancelled,
        many,
        strange,
        hidden,
        stranger,
    )


def with_gap(line: WebSocketRoute) -> None:
    """After what there was, the server says that bytes of it are lost."""
    server = line.connect_to_server()
    gap: dict[str, Any] = {"file": "stdout.txt", "epoch": 0, "from": 74_000, "to": 146_000}
    gap["reason"] = "the stream no longer has these bytes, and no saved log has them"

    def pass_on(message: str | bytes) -> None:
        told = json.loads(message)
        if "log" in told:
            gap["container"] = told["log"]["container"]
        if "caught_up" in told and "container" in gap:
            line.send(json.dumps({"gap": gap | {"id": told["caught_up"]["id"]}}))
        line.send(message)

    server.on_message(pass_on)
    line.on_message(server.send)


Show = Callable[[Page, Sights], Awaitable[None]]


async def _login(page: Page, sights: Sights) -> None:
    await expect(page.locator("#enter")).to_be_visible()


async def _refused(page: Page, sights: Sights) -> None:
    await page.locator("#enter").click()
    await expect(page.locator("#refused")).to_contain_text("TrustedClients")


async def _list(page: Page, sights: Sights) -> None:
    await expect(page.locator("#overview .last").first).to_be_visible()


async def _project(page: Page, sights: Sights) -> None:
    await expect(page.get_by_role("row")).to_have_count(4)


async def _failure(page: Page, sights: Sights) -> None:
    await expect(page.locator("#log")).to_contain_text("variants.vcf")
    await expect(page.locator("#verdict")).to_contain_text("Failed")
    await expect(page.locator("#line")).to_contain_text("complete")


async def _run(page: Page, sights: Sights) -> None:
    await expect(page.locator("#log")).to_contain_text("sample 0059")


async def _plots(page: Page, sights: Sights) -> None:
    await _run(page, sights)
    await page.keyboard.press("p")
    await expect(page.locator("#plots canvas").nth(3)).to_be_visible()
    await page.locator("#plots summary").click()
    await page.evaluate("document.getElementById('plots').scrollTop = 0")


async def _found(page: Page, sights: Sights) -> None:
    await expect(page.locator("#count")).to_have_text("2,000 lines, showing 190 kB of 3.8 MB")
    await page.locator("#sought").fill("record 0200")
    await expect(page.locator("#hits")).to_contain_text("100 lines")
    await page.locator("#sought").press("Enter")
    await expect(page.locator("#log .picked")).to_contain_text("record 020000")


async def _keys(page: Page, sights: Sights) -> None:
    await page.locator("#log .cm-content").focus()
    await page.keyboard.press("?")
    await expect(page.locator("#keys")).to_be_visible()


async def _state(page: Page, sights: Sights) -> None:
    await expect(page.locator("#verdict b")).to_be_visible()
    await expect(page.locator("#count")).not_to_contain_text("loading")


async def _menu(page: Page, sights: Sights) -> None:
    await page.locator(_OPEN).click()


async def _errors(page: Page, sights: Sights) -> None:
    """Nothing that is loaded is an error: what is not loaded is a row."""
    await expect(page.locator("#count")).to_have_text("2,000 lines, showing 190 kB of 3.8 MB")
    await page.locator("#log .cm-content").focus()
    await page.keyboard.press("e")
    await expect(page.locator("#log .hole").first).to_be_visible()


async def _times(page: Page, sights: Sights) -> None:
    await _run(page, sights)
    await page.locator("#log .cm-content").focus()
    for _ in range(3):
        await page.keyboard.press("t")


async def _tools(page: Page, sights: Sights) -> None:
    await _run(page, sights)
    if await page.locator("#more").is_visible():
        await page.locator("#more").click()
    await expect(page.locator("#saveall")).to_be_visible()


async def _missing(page: Page, sights: Sights) -> None:
    await expect(page.locator("#why")).not_to_be_empty()


async def _complete(page: Page, sights: Sights) -> None:
    await expect(page.locator("#log")).to_contain_text("all done")
    await expect(page.locator("#line")).to_contain_text("complete")


async def _table(page: Page, sights: Sights) -> None:
    await _plots(page, sights)
    await page.evaluate("document.getElementById('plots').scrollTop = 1e6")


async def _searching(page: Page, sights: Sights) -> None:
    """The server takes its time."""
    asked = asyncio.Event()

    async def held(route: Route) -> None:
        asked.set()

    await page.route("**/v1/search**", held)
    await expect(page.locator("#count")).to_have_text("2,000 lines, showing 190 kB of 3.8 MB")
    if await page.locator("#more").is_visible():
        await page.locator("#more").click()
    await page.locator("#sought").fill("record 0")
    await asked.wait()
    await expect(page.locator("#busy")).to_contain_text("searching")
    await expect(page.locator("#stop")).to_be_visible()


async def _lost(page: Page, sights: Sights) -> None:
    await _run(page, sights)
    await page.context.set_offline(True)
    await expect(page.locator("#line")).to_contain_text("No connection since")


async def _gap(page: Page, sights: Sights) -> None:
    await expect(page.locator("#state .warning")).to_contain_text("Missing in the log")


VIEWS: dict[str, tuple[str | None, Show]] = {
    "login": (None, _login),
    "login-refused": (None, _refused),
    "processes": ("", _list),
    "project": ("project", _project),
    "failed": ("failed", _failure),
    "running": ("running", _run),
    "plots": ("running", _plots),
    "found": ("long", _found),
    "keys": ("running", _keys),
    "queued": ("queued", _state),
    "on-hold": ("held", _state),
    "nothing-yet": ("empty", _state),
    "menu": ("queued", _menu),
    "done": ("done", _complete),
    "cancelled": ("cancelled", _state),
    "many": ("many", _state),
    "errors": ("long", _errors),
    "times": ("running", _times),
    "tools": ("running", _tools),
    "table": ("running", _table),
    "missing": ("hidden", _missing),
    "strange": ("strange", _state),
    "searching": ("long", _searching),
    "gap": ("running", _gap),
    "lost": ("running", _lost),
}
SEEN = {"failed", "processes"}
"""What is looked at in each run of the tests."""
DOCS = {
    "failed-middle-light": "process",
    "plots-middle-light": "plots",
    "processes-middle-light": "processes",
    "failed-phone-dark": "phone",
}
"""Those in docs/pictures, and their names there."""


@pytest.fixture
async def tab(
    browser: Browser, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Page, str, str]]:
    """A tab in a size and a theme."""
    size, theme = request.param
    width, height = SIZES[size]
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, ignore_https_errors=True
    )
    page = await context.new_page()
    page.on("dialog", lambda dialog: dialog.accept())  # another one's login
    yield page, size, theme
    await context.close()


@pytest.mark.parametrize(
    "tab",
    [(size, theme) for size in SIZES for theme in THEMES] if FOLDER else [("phone", "dark")],
    indirect=True,
    ids="-".join,
)
@pytest.mark.timeout(1800 if FOLDER else 180)
async def test_every_state_has_its_picture(
    tab: tuple[Page, str, str], stack: Stack, sights: Sights, tmp_path: Path
) -> None:
    """Nothing is wider than the screen, axe finds nothing, and on a phone less than 15 % of it is
    above a log, also where the state says an error and what it wrote last."""
    page, size, theme = tab
    unfit: dict[str, Any] = {}
    for name, (which, show) in VIEWS.items():
        if not FOLDER and name not in SEEN:
            continue
        uuid = getattr(sights, which).uuid if which else ""
        who = sights.stranger if which == "strange" else sights.user
        token = "" if which is None else f"&token={who.token}"
        await page.goto("about:blank")
        if name == "gap":
            await page.route_web_socket("**/v1/stream", with_gap)
        await page.goto(f"{stack.page_url}/#request={uuid}{token}")
        await show(page, sights)
        folder, picture = Path(FOLDER or tmp_path), f"{name}-{size}-{theme}"
        await page.screenshot(path=folder / f"{picture}.png")
        if picture in DOCS:
            (folder / "docs").mkdir(exist_ok=True)
            shutil.copy(folder / f"{picture}.png", folder / "docs" / f"{DOCS[picture]}.png")
        if found := await faults(page):
            unfit[name] = found
        assert await page.evaluate(WIDER) <= 0, f"{name} is wider than the screen"
        if size == "phone" and name == "failed":
            top = await page.evaluate("document.querySelector('#log').getBoundingClientRect().top")
            assert top < 0.15 * SIZES[size][1]
    assert not unfit
