# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A tab of Chromium with the page in it: what is on the screen and when, and what the tab costs."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass

from playwright.async_api import Browser, Page

from bench import figures
from bench.figures import Figures
from bench.worlds.cluster import World
from sandbox.model.records import Record
from sandbox.stack import Stack

PATIENCE = 180.0
_INIT = """
window.longest = 0;
new PerformanceObserver(list => {
    for (const {duration} of list.getEntries()) longest = Math.max(longest, duration);
}).observe({type: "longtask", buffered: true});
"""
_SEEN = """
async ([text, where, act]) => {
    const began = act ? performance.now() : 0;
    if (act?.click) document.querySelector(act.click).click();
    if (act?.sought) {
        const field = document.getElementById("sought");
        field.value = act.sought;
        field.dispatchEvent(new Event("input"));
        field.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", cancelable: true}));
    }
    for (;;) {
        const root = document.querySelector("#log > div")?.shadowRoot;
        const shown = root?.querySelector(where)?.textContent ?? "";
        if (shown.includes(text)) return performance.now() - began;
        await new Promise(requestAnimationFrame);
    }
}
"""
"""Milliseconds from the navigation, or from what is done, to a text on the screen."""
_FRAMES = """
async seconds => {
    const gaps = [];
    let last = await new Promise(requestAnimationFrame);
    for (const end = last + 1000 * seconds; last < end;) {
        const now = await new Promise(requestAnimationFrame);
        gaps.push(now - last);
        last = now;
    }
    return gaps;
}
"""
_CONTENT = ".cm-content"


@dataclass(frozen=True, slots=True)
class Side:
    """A browser, and what is behind the page."""

    made: World
    services: Stack
    browser: Browser
    options: argparse.Namespace
    saved: dict[str, Record]
    """What ended before the services began, for each part."""

    async def tab(self) -> Page:
        """A tab without history."""
        context = await self.browser.new_context(viewport={"width": 1440, "height": 900})
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        await context.add_init_script(_INIT)
        return await context.new_page()

    async def open(self, page: Page, request: Record, more: str = "") -> None:
        """Show the log of a request."""
        token = self.made.sandbox.cluster.root.token
        await page.goto(f"{self.services.page_url}/#request={request.uuid}&token={token}{more}")


async def seen(page: Page, text: str, where: str = _CONTENT, **act: str) -> float:
    """Milliseconds until a text is on the screen."""
    found = page.evaluate(_SEEN, [text, where, act or None])
    return float(await asyncio.wait_for(found, PATIENCE))


async def heap(page: Page) -> float:
    """Megabytes of objects in use, after a collection."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.enable")
    await session.send("HeapProfiler.collectGarbage")
    used = await session.send("Runtime.getHeapUsage")
    return float(used["usedSize"]) / 1e6


async def frames(page: Page, seconds: float, prefix: str) -> Figures:
    """Milliseconds between frames, for so long."""
    gaps = await page.evaluate(_FRAMES, seconds)
    return {
        f"{prefix}frame_p50_ms": figures.percentile(gaps, 0.5),
        f"{prefix}frame_p95_ms": figures.percentile(gaps, 0.95),
        f"{prefix}frame_worst_ms": max(gaps),
    }
