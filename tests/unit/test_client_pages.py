# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The pages about native clients show the programs that are tested."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from wsproxy.native_api.events import MAX_EVENTS, EventsRequest
from wsproxy.native_api.logs import LogsRequest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
PAGES: dict[Path, str] = runpy.run_path(str(ROOT / "tools" / "make_clients.py"))["pages"]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_program(page: Path) -> None:
    """Run `python tools/make_clients.py` after changing a client."""
    assert page.read_text(encoding="utf-8") == PAGES[page]


_TOOLS = ("__init__.py", "go.sum", "package-lock.json")
FILES = sorted(
    path
    for language in ("go", "js", "python", "ruby")
    for path in (ROOT / "tests" / "clients" / language).iterdir()
    if path.is_file() and path.name not in _TOOLS
)


@pytest.mark.parametrize("program", FILES, ids=lambda path: path.name)
def test_every_file_of_a_client_is_shown(program: Path) -> None:
    """Nothing is needed that the page does not have, but what tools write."""
    page = ROOT / "docs" / "clients" / f"{program.parent.name}.md"
    assert f"## {program.name}\n" in page.read_text(encoding="utf-8")


def test_every_field_of_a_request_is_described() -> None:
    """And the limits are those of the code."""
    for request in (EventsRequest, LogsRequest):
        for field in request.__struct_fields__:
            assert f'"{field}"' in PAGE
    assert f"At most {MAX_EVENTS}" in PAGE
