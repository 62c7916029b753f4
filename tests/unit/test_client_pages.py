# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The page about native clients shows the programs that are tested."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from wsproxy.native_api.events import MAX_EVENTS, EventsRequest
from wsproxy.native_api.logs import LogsRequest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
MAKER = runpy.run_path(str(ROOT / "tools" / "make_clients.py"))


def test_the_page_shows_the_program() -> None:
    """Run `python tools/make_clients.py` after changing the client in Python."""
    assert MAKER["page"]() == PAGE


@pytest.mark.parametrize("language", ["go", "js", "python", "ruby"])
def test_the_page_leads_to_each_program(language: str) -> None:
    """The files that the suite runs, in the repository."""
    assert f"](../tests/clients/{language})" in PAGE
    assert (ROOT / "tests" / "clients" / language).is_dir()


def test_every_field_of_a_request_is_described() -> None:
    """And the limits are those of the code."""
    for request in (EventsRequest, LogsRequest):
        for field in request.__struct_fields__:
            assert f'"{field}"' in PAGE
    assert f"At most {MAX_EVENTS}" in PAGE
