# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""arv-mount, unchanged: what others change in a project is seen in its folder by an event.

Runs where arvados_fuse is installed and /dev/fuse is there; `ARV_MOUNT` names the program if it is
not on the PATH.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox import stack as services
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from sandbox.sandbox import Sandbox
from sandbox.stack import Stack

PROGRAM = os.environ.get("ARV_MOUNT") or shutil.which("arv-mount")
WITHIN = 60.0
"""The mount asks by itself after 15 s: what is there sooner came by an event."""

pytestmark = pytest.mark.skipif(
    PROGRAM is None or not Path("/dev/fuse").exists(), reason="no arv-mount, or no /dev/fuse"
)


@pytest.fixture(scope="module")
async def site(sandbox: Sandbox) -> AsyncIterator[Stack]:
    """The product, with a wsproxy that serves wss:// itself."""
    files = {
        "ARVADOS_NATS_TLS_CERTIFICATE": str(sandbox.certificates.certificate),
        "ARVADOS_NATS_TLS_KEY": str(sandbox.certificates.key),
    }
    async with services.beside(sandbox, **files) as running:
        sandbox.advertise(running.websocket_url.replace("ws://", "wss://"))
        yield running


@asynccontextmanager
async def mounted(site: Stack, project: Record, who: Actor, folder: Path) -> AsyncIterator[Path]:
    """The project as a folder."""
    assert PROGRAM is not None
    place, log = folder / "mount", folder / "log"
    place.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "--foreground", "--logfile", str(log), "--project", project.uuid, str(place)),
        env={**os.environ, **site.sandbox.client_environment(who.token)},
    )
    try:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(os.path.ismount, place):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.1)
        yield place
        assert "websocket" not in log.read_text(), "it has fallen back to polling"
    finally:
        unmount = await asyncio.create_subprocess_exec("fusermount", "-u", "-z", str(place))
        await unmount.wait()
        await process.wait()


async def until_there(place: Path, names: set[str]) -> None:
    """The folder has these entries, soon."""
    found: set[str] = set()
    try:
        async with asyncio.timeout(WITHIN):
            while found != names:
                found = set(await asyncio.to_thread(os.listdir, place))
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(found) from None


async def test_changes_of_others_are_seen(site: Stack, tmp_path: Path) -> None:
    """Made, renamed and thrown away."""
    cluster = site.sandbox.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    project = await cluster.project(owner=alice)
    await cluster.share(project, bob, "can_manage")
    async with mounted(site, project, alice, tmp_path) as place:
        await until_there(place, set())
        made = await cluster.collection("first", owner=project, by=bob)
        await until_there(place, {"first"})
        await cluster.update(made, {"name": "second"}, bob)
        await until_there(place, {"second"})
        await cluster.delete(made, bob)
        await until_there(place, set())
