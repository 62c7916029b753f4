# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whoever follows a citation of docs/facts finds the page, the section, and the numbered row."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTS = ROOT / "docs" / "facts"
_CITED = re.compile(
    r"facts/(?P<page>[a-z-]+\.md)(?P<places>(?:,?(?: and)?\s+(?:\d[\da-z.]*|[AGWK]\d+)(?![\w-]))*)"
)


def _citations() -> set[tuple[str, str]]:
    """Each cited (page, place); the place is "" where the whole page is meant."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = set()
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix not in (".py", ".md", ".ts", ".js", ".mjs", ".go", ".rb", ".yaml", ".toml"):
            continue
        if not path.is_file() or path.parent == FACTS or path == Path(__file__):
            continue
        text = re.sub(r"\n\s*#?\s*", " ", path.read_text(encoding="utf-8"))
        for cited in _CITED.finditer(text):
            found.add((cited["page"], ""))
            for place in re.findall(r"\d[\da-z.]*|[AGWK]\d+", cited["places"]):
                found.add((cited["page"], place.rstrip(".")))
    return found


def _has(page: str, place: str) -> bool:
    text = page
    if place[:1].isalpha():
        return re.search(rf"^\| {place} \|", text, re.MULTILINE) is not None
    if re.search(rf"^##+ {re.escape(place)}[. ]", text, re.MULTILINE):
        return True
    section, _, row = place.partition(".")
    body = re.search(rf"^## {section}\. .*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return bool(row and body and re.search(rf"^{row}\. ", body[0], re.MULTILINE))


@pytest.mark.parametrize(("page", "place"), sorted(_citations()))
def test_a_cited_fact_is_there(page: str, place: str) -> None:
    """A page of docs/facts, a section of it, or a row of a table or list."""
    assert _has((FACTS / page).read_text(encoding="utf-8"), place) or not place
