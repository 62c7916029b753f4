# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A real Chromium, and everything behind the page."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from sandbox.servers import backends
from sandbox.servers.postgres import PostgresServer
from sandbox.stack import Stack
from tests.support.worlds import stacks
from wsproxy.page.routes import STATIC

MODULE = Path(__file__).parents[2] / "web" / "arvados-events"
"""The public module for browsers and Node.js."""

SOON_MS = 60_000
"""Playwright's own patience is 5 seconds for what is expected, too little for a busy machine."""
expect.set_options(timeout=SOON_MS)

_BROWSERS = ("chromium", "google-chrome", "chromium-browser")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
async def shared_stack(
    backend: backends.Backend,
    postgres_server: PostgresServer,
    keys_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """All services for all tests of the page; ends of logs are settled soon."""
    if not (STATIC / "index.html").exists():
        pytest.skip("the page is not built: make web")
    certificates = tmp_path_factory.mktemp("tls")
    async with stacks.on(
        backend, postgres_server, keys_folder, certificates, ARVADOS_NATS_LOG_CONFIRM_SECONDS="1"
    ) as running:
        yield running


def _fault_of_playwright() -> str:
    """What its Node.js says when it lacks something of this machine; empty if nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "playwright", "--version"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    """The machine's Chromium; `make test` installs it on Debian."""
    program = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    if fault := _fault_of_playwright():
        pytest.skip(f"Playwright cannot start: {fault}")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield running
        await running.close()


def _violation(text: str) -> list[str]:
    """What the browser says of a breach of the page's own policy."""
    return [text] if "Content Security Policy" in text else []


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A tab without history; what it throws, or its policy forbids, fails the test."""
    context = await browser.new_context(viewport={"width": 1100, "height": 700})
    context.set_default_timeout(SOON_MS)
    tab = await context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda said: errors.extend(_violation(said.text)))
    yield tab
    await context.close()
    assert not errors
