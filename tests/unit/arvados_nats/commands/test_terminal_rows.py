# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The table of what a terminal's language means, which the page is tested with as well."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from arvados_nats.commands.terminal_rows.fold import Fold
from arvados_nats.commands.terminal_rows.row import Row
from arvados_nats.commands.terminal_rows.style import Style

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "golden" / "terminal_cases.json").read_text(encoding="utf-8")
)


def rows_of(pieces: Iterable[bytes]) -> list[Row]:
    """All rows that bytes in these cuts make."""
    rows: list[Row] = []
    fold = Fold(rows.append)
    for piece in pieces:
        fold.write(piece)
    fold.close()
    last = fold.screen.rows[:-1] if fold.screen.fresh else fold.screen.rows
    return [*rows, *last]


def look(style: Style) -> dict[str, Any]:
    """What is not as in plain text."""
    values = dataclasses.asdict(style)
    return {
        name: value for name, value in values.items() if value is not None and value is not False
    }


def shown(row: Row) -> list[Any]:
    """As the table writes it."""
    return [[run.text, look(run.style)] if look(run.style) else run.text for run in row.runs]


def wanted(row: Any) -> list[Any]:
    return ([row] if row else []) if isinstance(row, str) else row


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_rows_are_as_the_table_says_in_any_cuts(case: dict[str, Any]) -> None:
    """`\\udcNN` in the table stands for the byte NN."""
    pieces = [piece.encode("utf-8", "surrogateescape") for piece in case["bytes"]]
    rows = [wanted(row) for row in case["rows"]]
    found = rows_of(pieces)
    assert [shown(row) for row in found] == rows
    if "stamps" in case:
        assert [row.stamp for row in found] == case["stamps"]
    whole = b"".join(pieces)
    for size in (1, 2, 3, 7) if len(whole) < 5000 else (997,):
        cut = (whole[at : at + size] for at in range(0, len(whole), size))
        assert [shown(row) for row in rows_of(cut)] == rows, size


@pytest.mark.parametrize(
    "line",
    [
        b"y\r" + b"x" * 3_000_000,
        b"x" * 3_000_000 + b"\b\rab",
        b"x" * 90_000 + b"\x1b[1K\x1b[2@\x1b[3X" * 3_000,
        b"=\x1b[255b" * 20_000,
        b"a\n\x1b[A\x1b[L" * 3_000,
        b"\x1b[2J\x1b[99;1Hx" * 5_000,
    ],
)
def test_what_is_drawn_costs_no_more_than_a_screen(line: bytes) -> None:
    """However long a line is, and whatever is drawn over it: what the cursor reaches is bounded."""
    tracemalloc.start()
    try:
        fold = Fold(lambda row: fold.screen.touched.pop(row, None))
        for at in range(0, len(line), 100_000):
            fold.write(line[at : at + 100_000])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(fold.screen.rows) <= 200
    assert most < 40_000_000
