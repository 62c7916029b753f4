# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The values of one SQL statement, and what is said of values of a wrong type."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.api.errors import argument_error
from sandbox.model.refusal import Refusal

_RUBY = {str: "String", int: "Integer", float: "Float", list: "Array", dict: "Hash",
         bool: "TrueClass", type(None): "NilClass"}  # fmt: skip


@dataclass(slots=True)
class Arguments:
    """The values of one SQL statement; `add` answers the placeholder."""

    values: list[object] = field(default_factory=list)

    def add(self, value: object, cast: str) -> str:
        """Remember a value and name its place, e.g. `$3::text`."""
        self.values.append(value)
        return f"${len(self.values)}::{cast}"


def ruby(value: object) -> str:
    """The Ruby class that a value would have."""
    return _RUBY.get(type(value), type(value).__name__)


def wrong_type(operator: str, operand: object) -> Refusal:
    """The operand does not fit the operator (422)."""
    return argument_error(
        f"Invalid operand type '{ruby(operand)}' for '{operator}' operator in filters"
    )
