# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Our clients, and those of others with the lines of our guides, do what a right one does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arvados_nats.protocol_v1 import requests as requests_v1
from tests.contract.play import TOKEN, Names, Script, lines, play
from tests.support import node
from tests.support.clients.v1 import as_described
from wsproxy.wamp import messages as messages_wamp

HERE = Path(__file__).parent
FRAMES = sorted((HERE / "frames").glob("*/*.jsonl"))


def clients() -> Iterator[Any]:
    """Each situation with each client of its protocol."""
    of: dict[str, dict[str, list[Any]]] = {
        "v0": {"javascript": [*node.command(), "v0_javascript.mjs"]},
        "v1": {
            "python": [sys.executable, "v1_python.py"],
            "javascript": [*node.command(), "v1_javascript.mjs"],
        },
        "wamp": {"autobahn": [sys.executable, "wamp_autobahn.py"]},
    }
    for path in FRAMES:
        for name, words in of[path.name.partition("-")[0]].items():
            command = [*words[:-1], str(HERE / str(words[-1]))]
            mark = pytest.mark.skipif(len(words) == 1, reason="no node on this machine")
            yield pytest.param(path, command, id=f"{path.stem}-{name}", marks=mark)


@pytest.mark.parametrize(("frames", "command"), list(clients()))
async def test_a_client_does_what_is_right(frames: Path, command: list[str]) -> None:
    """After each situation it says what is due, and has told every byte and event once."""
    assert await play(Script(lines(frames)), command) is None


@pytest.mark.parametrize("path", FRAMES, ids=lambda path: path.stem)
def test_the_frames_are_those_of_the_protocol(path: Path) -> None:
    """What the server says there is what it can say, and it understands what the client says."""
    head, *steps, right = lines(path)
    assert head["about"] and right["right"]
    names = Names()
    for step in steps:
        if "client" in step:
            said = json.dumps(names.filled(step["client"]))
            if head["path"] == "/v1/stream":
                requests_v1.decode(said)
            elif head["path"] == "/wamp":
                messages_wamp.decode(said.replace('"$r"', "1"))
        told = step.get("server", {})
        if isinstance(told, list):
            told = told[5] if told[0] == messages_wamp.Code.EVENT else {}
        for key, body in told.items():
            if head["path"] != "/websocket" and "newer" not in path.stem:
                as_described(key, body)


async def test_a_client_that_gives_up_is_found_out() -> None:
    """The player says what is wrong with it, and what would be right; no token is in it."""
    (frames,) = (path for path in FRAMES if path.stem == "v1-revoked")
    (other,) = (path for path in FRAMES if path.stem == "v1-token-ended")
    with_other = lines(other)[:-1] + lines(frames)[-1:]
    wrong = await play(Script(with_other), [sys.executable, str(HERE / "v1_python.py")])
    assert wrong is not None
    assert "a right client prints b'one\\nrevoked\\n'" in wrong
    assert TOKEN not in wrong


def test_every_message_that_needs_an_answer_is_among_them() -> None:
    """A gap, a queue, an end, a revocation, a lost line: in each protocol that knows it."""
    said = {key for path in FRAMES for step in lines(path) for key in _keys(step)}
    assert {
        "gap",
        "queued",
        "end",
        "revoked",
        "gone",
        "narrowed",
        "attempt",
        "places",
        "error",
        "goodbye",
    } <= said


def _keys(step: dict[str, Any]) -> set[str]:
    return set(step["server"]) if isinstance(step.get("server"), dict) else set()


def test_the_player_needs_nothing_of_ours() -> None:
    """Others run it beside their own clients."""
    text = (HERE / "play.py").read_text(encoding="utf-8")
    assert not {"arvados_nats", "wsproxy", "tests", "msgspec"} & {
        line.split()[1].partition(".")[0]
        for line in text.splitlines()
        if line.startswith(("import ", "from "))
    }
