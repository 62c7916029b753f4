# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""YAML of a user's: read in no more time and memory than its text is worth, or bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.arvados import config
from arvados_nats.contract import events, serialized
from arvados_nats.errors import BadInput
from publishers.permissions.token_query import scopes_of
from publishers.queue import table

ROOT = Path(__file__).parents[4]
LAUGHS = "a: &a [" + "x, " * 9 + "x]\n" + "".join(
    f"{after}: &{after} [" + f"*{before}, " * 9 + f"*{before}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)  # fmt: skip
REFUSED = {
    "billion laughs": LAUGHS,
    "one alias": "a: &x [1]\nb: *x",
    "a merged mapping": "a: &x {b: 1}\nc: {<<: *x}",
    "an alias in itself": "&a [*a]",
    "nested": "[" * 20_000,
    "too long": "a: " + "x" * serialized.MAX_YAML_BYTES,
    "a tag that it is not": "!!bool x",
    "no time": "!!timestamp x",
    "no number": '!!int ""',
    "a number without end": "a: " + "1" * 10_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_no_reader_takes(text: str) -> None:
    """Each as bad input, by its length alone, its aliases or its end; nobody ends by it."""
    with pytest.raises(BadInput):
        serialized.from_yaml(text)
    with pytest.raises(BadInput):
        events.kept_properties(text, "collection")
    assert scopes_of(text) == ()
    assert table._decoded("zzzzz-dz642-000000000000000", text) in (text, None)


@pytest.mark.parametrize("text", ["0x" + "f" * 10_000, "text: 0x" + "f" * 10_000])
def test_a_number_that_no_text_holds(text: str) -> None:
    """A hexadecimal one has no bound of Python's until text is made of it."""
    with pytest.raises(BadInput):
        events.kept_properties(text, "collection")
    assert table._decoded("zzzzz-dz642-000000000000000", text) == text


_words = st.one_of(
    st.sampled_from(
        "!!bool |!!int |!!float |!!timestamp |!!binary |!!set |!!omap |!!map ".split("|")
    ),
    st.sampled_from(
        "a 1 0x 1e9 : - &a *a << ? [ ] { } 2014-01-02 3:4:5 .nan .inf ~ %YAML ---".split()
    ),
    st.sampled_from([": ", "- ", "? ", "\n", '"', "'", "|\n ", "\x00"]),
)


@given(st.lists(_words, max_size=12).map("".join))
def test_whatever_is_written_is_json_or_bad_input(text: str) -> None:
    """No exception of the parser's or of its constructors comes through."""
    try:
        made = serialized.plain(serialized.from_yaml(text))
    except BadInput:
        return
    json.dumps(made)


def test_a_configuration_with_many_aliases_is_looked_at_once() -> None:
    """Aliases are allowed there; a name that is written twice is still found."""
    text = LAUGHS + "Clusters:\n  zzzzz: {ManagementToken: x}\n"
    assert list(config.parse(text)) == ["zzzzz"]
    with pytest.raises(BadInput, match="written twice"):
        config.parse(text + "again: {b: 1, b: 2}\n")


def test_there_is_one_reader_of_users_yaml() -> None:
    """And two of what administrators write: nodes of config.yml, Secrets that `init` wrote."""
    rooms = ("arvados_nats", "authcallout", "publishers", "wsproxy")
    loads = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"yaml\.(?!safe_dump|nodes|\w*Error)\w+\(", path.read_text(encoding="utf-8"))
    }
    assert loads == {
        "arvados_nats/arvados/config.py",
        "arvados_nats/admin/init/kubernetes.py",
        "arvados_nats/contract/serialized.py",
    }
    assert issubclass(yaml.CSafeLoader, yaml.constructor.SafeConstructor)
