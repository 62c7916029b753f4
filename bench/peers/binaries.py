# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where the programs of peers are, or how they come to be; nothing of them is ever committed.

A program is, first found: what an environment variable names (`ARVADOS_WS`, `CENTRIFUGO`, `NEXUS`),
what was built before into `bench/peers/bin`, or it is built there with Go (`build`): from a folder
with the source (`ARVADOS_SOURCE`, `NEXUS_SOURCE`), else from its Go module. `python -m
bench.peers.build` does the same for all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BIN = Path(__file__).parent / "bin"
_HERE = Path(__file__).parent
_SECONDS = 1800


class NotToBeHad(Exception):
    """This peer cannot be measured here; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One program. `package`, a folder of the module, is built when that is the program, else
    `program`, a file of this folder, is compiled as if it stood in the module as
    `cmd/<name>/main.go`."""

    name: str
    module: str
    version: str
    package: str = ""
    program: str = ""

    @property
    def given(self) -> Path | None:
        """The program that the environment names."""
        path = os.environ.get(self.name.upper().replace("-", "_"))
        return Path(path) if path else None

    @property
    def source(self) -> Path | None:
        """The source folder that the environment names."""
        path = os.environ.get(f"{self.name.partition('-')[0].upper()}_SOURCE")
        return Path(path) if path else None


PEERS = {
    peer.name: peer
    for peer in (
        Peer("arvados-ws", "git.arvados.org/arvados.git", "latest", program="arvados_ws.go.txt"),
        Peer("centrifugo", "github.com/centrifugal/centrifugo/v6", "v6.9.1", package="."),
        Peer("nexus", "github.com/gammazero/nexus/v3", "v3.2.2", package="./nexusd"),
    )
}


def find(name: str) -> Path:
    """The program of a peer, built if need be; NotToBeHad if it cannot be."""
    peer = PEERS[name]
    for path in (peer.given, BIN / name):
        if path and os.access(path, os.X_OK):
            return path
    return build(peer)


def build(peer: Peer) -> Path:
    """Build into `BIN`; NotToBeHad with the reason if that fails."""
    go = shutil.which("go")
    if go is None:
        raise NotToBeHad(
            f"{peer.name}: no Go here to build it with; set {peer.name.upper().replace('-', '_')}"
        )
    BIN.mkdir(exist_ok=True)
    if peer.source:
        _from_source(go, peer, peer.source)
    else:
        _from_module(go, peer)
    return BIN / peer.name


def _from_source(go: str, peer: Peer, source: Path) -> None:
    """The source folder is not touched: our program is laid over it."""
    if peer.package:
        _run(peer, [go, "build", "-o", str(BIN / peer.name), peer.package], source)
        return
    with tempfile.TemporaryDirectory() as place:
        overlay = Path(place) / "overlay.json"
        target = source.resolve() / "cmd" / f"bench-{peer.name}" / "main.go"
        overlay.write_text(json.dumps({"Replace": {str(target): str(_HERE / peer.program)}}))
        package = f"./cmd/bench-{peer.name}"
        command = [go, "build", "-overlay", str(overlay), "-o", str(BIN / peer.name), package]
        _run(peer, command, source)


def _from_module(go: str, peer: Peer) -> None:
    package = peer.module + peer.package.removeprefix(".")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _run(peer, [go, "mod", "init", f"bench.invalid/{peer.name}"], folder)
        if peer.program:
            (folder / "main.go").write_text((_HERE / peer.program).read_text())
        _run(peer, [go, "get", f"{package}@{peer.version}"], folder)
        if peer.program:
            _run(peer, [go, "mod", "tidy"], folder)
            package = "."
        _run(peer, [go, "build", "-o", str(BIN / peer.name), package], folder)


def _run(peer: Peer, command: Sequence[str], folder: Path, **environment: str) -> None:
    try:
        subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "GOFLAGS": "-buildvcs=false", **environment},
            check=True,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.strip().splitlines()[-2:])
        raise NotToBeHad(f"{peer.name}: {' '.join(command[:3])} failed: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{peer.name}: {error}") from error
