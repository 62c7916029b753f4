# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The table of what a terminal's language means, which the page is tested with as well."""

from __future__ import annotations

import dataclasses
import json
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
    last = fold.rows[:-1] if fold.fresh else fold.rows
    return [*rows, *last]


def look(style: Style) -> dict[str, Any]:
    """What is not as in plain text."""
    values = dataclasses.asdict(style)
    return {name: value for name, value in values.items() if value not in (None, False)}


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
    for size in (1, 2, 3, 7):
        cut = (whole[at : at + size] for at in range(0, len(whole), size))
        assert [shown(row) for row in rows_of(cut)] == rows, size
