# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Plain values in the language of nats.conf. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KIB, MIB, GIB = 1024, 1024**2, 1024**3


class Size(int):
    """A number of bytes, printed with the largest unit that divides it."""

    def __str__(self) -> str:
        for unit, suffix in ((GIB, "GB"), (MIB, "MB"), (KIB, "KB")):
            if self and self % unit == 0:
                return f"{self // unit}{suffix}"
        return int.__repr__(self)


def printed(settings: Mapping[str, Any]) -> str:
    """Plain values in the language of nats.conf."""
    return "".join(f"{key}: {_value(value, 0)}\n" for key, value in settings.items())


def _value(value: Any, depth: int) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case list():
            return _list(value, depth)
        case dict():
            pad = "  " * (depth + 1)
            lines = (f"{pad}{key}: {_value(item, depth + 1)}\n" for key, item in value.items())
            return "{\n" + "".join(lines) + "  " * depth + "}"
        case _:
            raise TypeError(f"nats.conf cannot hold a {type(value).__name__}")


def _list(values: list[Any], depth: int) -> str:
    if len(values) == 1 and not isinstance(values[0], dict):
        return f"[{_value(values[0], depth)}]"
    pad = "  " * (depth + 1)
    lines = (f"{pad}{_value(value, depth + 1)}\n" for value in values)
    return "[\n" + "".join(lines) + "  " * depth + "]"
