# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which state follows which, and which attributes may change in a state, with Arvados' texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sandbox.model import ruby
from sandbox.model.records import Record
from sandbox.model.rules import Problems

_EMPTY: tuple[Any, ...] = (None, [], {})


def check_state(
    record: Record, follows: Mapping[str | None, tuple[str, ...]], problems: Problems
) -> None:
    """A state may only be followed by some."""
    before, state = record.before("state"), record["state"]
    if before != state and state not in follows.get(before, ()):
        problems.add("state", f"cannot change from {before or ''} to {state}")


def check_permitted(record: Record, permitted: Iterable[str], problems: Problems) -> None:
    """Refuse changes of attributes that are fixed in this state."""
    allowed = set(permitted)
    for column in record.changes():
        old, new = record.before(column), record[column]
        if column in allowed or (old in _EMPTY and new in _EMPTY):
            continue
        quoted = f"({ruby.inspect(old)}, {ruby.inspect(new)})"
        problems.add(column, f"cannot be modified in state '{record['state']}' {quoted}")
