# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a terminal's language means by chance: the same in any cuts, and in TypeScript."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import NODE
from tests.unit.arvados_nats.commands.test_terminal_rows import rows_of, shown

WEB = Path(__file__).parents[4] / "web"
VITEST = WEB / "node_modules" / "vitest" / "vitest.mjs"
EXAMPLES = int(os.environ.get("ARVADOS_NATS_FUZZ_EXAMPLES", "400"))
"""Also where chance begins."""

_WORDS = [
    "a",
    "50 %",
    "word ",
    "漢字",
    "e\u0301",
    "\u0301",
    "👩\u200d💻",
    "\ufeff",
    "é",
    "✜",
    "\U0001fae8",
    "\u2630",
    "👍🏽",
    "🇩🇪",
    "❤\ufe0f",
    "\u1112\u1161",
    "ﾊﾞ",
    "שלום",
    "\u200b",
    "\u0e33",
    " ",
    "0",
]
_MOVES = ["\r", "\r", "\n", "\n", "\n", "\b", "\b\b\b", "\t", "\r\n"]
_OTHERS = ["\x07", "\0", "\x7f", "\x0e", "\x0f", "\x0b", "\x18", "\x9b", "\x9c", "\x85", "\u202e"]
_STAMPS = ["2026-11-25T01:02:03.000000001Z ", "2026-11-25T01:02:03Z", "2026-1", "12"]
_BYTES = [b"\xff", b"\xe2\x82", b"\xf0\x9f", b"\xc0\x80", b"\xed\xa0\x80", b"\x9b", b"\xc2"]
_SHORT = ["7", "8", "M", "D", "E", "c", "H", "(B", ")0", "=", "#8", "\\", "\x1b", "O", "N", "[", ""]
_LOOKS = [
    "",
    "0",
    "1",
    "2;3",
    "4",
    "4:3",
    "7",
    "9",
    "22",
    "24",
    "31",
    "42",
    "97",
    "38;5;9",
    "48:5:17",
]
_COLOURS = ["38;2;1;2;3", "38:2::1:2:3", "38:2:1:2:3", "38;5", "38;2;1", "58;5;1;31", "0;;1", ":"]
_STRINGS = ["]0;t", "]8;;http://x/", "P1;2q#0", "_a", "^pm", "Xsos", "Ptmux;\x1b"]
_ENDS = ["\x07", "\x1b\\", "\x9c", "", "\n", "\x1b"]


def _sequence(chance: random.Random) -> str:
    if chance.random() < 0.3:
        return f"\x1b[{chance.choice(_LOOKS + _COLOURS)}m"
    private = chance.choice(["", "", "", "", "", "?", ">", "="])
    numbers = chance.choice(
        ["", "", "1", "2", "3", "0", "5", "40", "999", "2;3", "4", "25", "1049"]
    )
    between = chance.choice(["", "", "", "", "", "", "", " ", "!", "$"])
    final = chance.choice("ABCDEFGHIJKLMPXZ@abdefghlmpqrstu`")
    return f"\x1b[{private}{numbers}{between}{final}"


def _piece(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.35:
        text = chance.choice(_WORDS) * chance.choice([1, 1, 1, 3])
    elif kind < 0.6:
        text = chance.choice(_MOVES)
    elif kind < 0.84:
        text = _sequence(chance)
    elif kind < 0.88:
        text = "\x1b" + chance.choice(_SHORT)
    elif kind < 0.92:
        text = "\x1b" + chance.choice(_STRINGS) + chance.choice(_ENDS)
    elif kind < 0.95:
        text = chance.choice(_STAMPS)
    elif kind < 0.97:
        return chance.choice(_BYTES)
    else:
        text = chance.choice(_OTHERS)
    return text.encode()


def _cut(chance: random.Random, whole: bytes) -> list[bytes]:
    places = sorted(chance.randrange(len(whole) + 1) for _ in range(chance.randrange(6)))
    return [whole[at:to] for at, to in zip([0, *places], [*places, len(whole)], strict=True)]


def _cases() -> list[dict[str, Any]]:
    """As in the table, with what Python makes of them."""
    chance = random.Random(EXAMPLES)
    cases = []
    for number in range(EXAMPLES):
        whole = b"".join(_piece(chance) for _ in range(chance.choice([5, 20, 60, 400])))
        pieces = _cut(chance, whole)
        rows = rows_of([whole])
        cases.append(
            {
                "name": f"by chance, {number}",
                "bytes": [piece.decode("utf-8", "surrogateescape") for piece in pieces],
                "rows": [shown(row) for row in rows],
                "stamps": [row.stamp for row in rows],
            }
        )
        again = rows_of(pieces)
        assert [shown(row) for row in again] == cases[-1]["rows"], (pieces, number)
        assert [row.stamp for row in again] == cases[-1]["stamps"], (pieces, number)
    return cases


@pytest.mark.skipif(NODE is None or not VITEST.exists(), reason="no vitest: make web")
def test_python_and_typescript_agree_on_what_comes_by_chance(tmp_path: Path) -> None:
    """Words, moves, looks, strings and broken bytes in any order and in any cuts."""
    table = tmp_path / "cases.json"
    table.write_text(json.dumps(_cases()))
    assert NODE is not None
    done = subprocess.run(
        [
            NODE, str(VITEST), "run", "--reporter=dot", "--no-color", "-t", "terminal:",
            "tests/fold.test.ts",
        ],
        cwd=WEB, env=os.environ | {"TERMINAL_CASES": str(table)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert f"{EXAMPLES} passed" in done.stdout
