# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-events` as other people's pages have it: packed, bundled, and served from elsewhere."""

from __future__ import annotations

import json
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.async_api import Page

from sandbox.servers import ports
from sandbox.stack import Stack
from tests.browser.conftest import MODULE
from tests.browser.test_types import NODE, ran

VITE = MODULE.parent / "node_modules" / "vite" / "bin" / "vite.js"
_PAGE = '<!doctype html><script type="module" src="./main.js"></script>'
_PROGRAM = """
import { ArvadosEvents } from "arvados-events";
const { url, token } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
window.told = [];
const line = new ArvadosEvents({ url, token, onstate: (state) => { window.state = state; } });
line.events({ onevent: ({ object_uuid }) => window.told.push(object_uuid) }, { begin: "oldest" });
"""


@pytest.mark.skipif(
    NODE is None or shutil.which("npm") is None or not VITE.exists(), reason="no npm: make web"
)
async def test_the_package_in_a_bundle_on_a_page_of_another_origin(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    """`npm pack`, bundled by Vite, opened at an origin whose pages may connect: events come."""
    assert NODE is not None
    packed = (await ran("npm", "pack", "--silent", str(MODULE), folder=tmp_path)).split()[-1]
    with tarfile.open(tmp_path / packed) as archive:
        archive.extractall(tmp_path / "node_modules", filter="data")
    (tmp_path / "node_modules" / "package").rename(tmp_path / "node_modules" / "arvados-events")
    (tmp_path / "index.html").write_text(_PAGE)
    (tmp_path / "main.js").write_text(_PROGRAM)
    await ran(NODE, str(VITE), "build", "--logLevel", "error", folder=tmp_path)

    user = await stack.sandbox.cluster.user("alice")
    made = await stack.sandbox.cluster.collection("packed", owner=user)
    pages = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "dist"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}"
    listen = f"127.0.0.1:{next(ports.candidates())}"
    settings = {"ARVADOS_NATS_LISTEN": listen, "ARVADOS_NATS_ALLOWED_ORIGINS": origin}
    replica = stack.add("wsproxy for other pages", ["wsproxy"], **settings)
    del stack.services[replica.name]
    await replica.start()
    try:
        given = json.dumps({"url": f"ws://{listen}/v1/stream", "token": user.token})
        await page.goto(f"{origin}/#{given}")
        await page.wait_for_function("uuid => window.told.includes(uuid)", arg=made.uuid)
        assert await page.evaluate("window.state") == "open"
    finally:
        await replica.stop()
        server.shutdown()
        server.server_close()
