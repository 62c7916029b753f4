# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""docs/settings.md says what the settings classes say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

MAKER = Path(__file__).parents[2] / "tools" / "make_settings.py"


@pytest.fixture(scope="module")
def maker() -> dict[str, object]:
    return runpy.run_path(str(MAKER))


def test_the_page_is_up_to_date(maker: dict[str, object]) -> None:
    """Run `python tools/make_settings.py` after changing a setting."""
    page = maker["page"]
    assert callable(page)
    assert (MAKER.parents[1] / "docs" / "settings.md").read_text(encoding="utf-8") == page()


def test_every_setting_has_a_meaning(maker: dict[str, object]) -> None:
    """The text under a field says what happens if it is changed."""
    page = maker["page"]
    assert callable(page)
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert not [row for row in rows if row.endswith("|  |")]
