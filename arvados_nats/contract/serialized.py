# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What stands in columns of Arvados that hold JSON, YAML in old rows, and whatever a user posts.

Pure. YAML by libyaml, since Python's own loader takes ten seconds for a few thousand brackets, and
without aliases, which make gigabytes of a few lines.
"""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from typing import Any

import yaml

from arvados_nats.errors import BadInput

MAX_YAML_BYTES = 64 * 1024
_MAX_EXACT = 2**53
_MAX_BITS = 10_000
"""Of a number that Python makes text of."""
_NOT_YAML = (
    yaml.YAMLError,
    # Of PyYAML's constructors, for `!!bool x`, `!!timestamp x` and their like.
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
)


def from_yaml(text: str | bytes) -> Any:
    """What it holds. BadInput for what is none, too long or too deep, or has aliases."""
    if len(text) > MAX_YAML_BYTES:
        raise BadInput("neither JSON nor short enough to be old YAML")
    try:
        events = yaml.parse(text, Loader=yaml.CSafeLoader)
        if any(isinstance(event, yaml.AliasEvent) for event in events):
            raise BadInput("YAML with aliases")
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except _NOT_YAML as error:
        raise BadInput("neither JSON nor YAML") from error


def mapping(text: str) -> Any:
    """What a column of a mapping holds: JSON, or YAML in old rows, as `plain`; {} if it is empty.
    BadInput for what is neither, or too long."""
    if not text:
        return {}
    for load in (json.loads, _yaml_mapping) if len(text) <= MAX_YAML_BYTES else ():
        with contextlib.suppress(ValueError, RecursionError, BadInput):
            return plain(load(text))
    raise BadInput("neither JSON nor YAML that is short enough")


def _yaml_mapping(text: str) -> dict[Any, Any]:
    loaded = from_yaml(text)
    if not isinstance(loaded, dict):
        raise BadInput("not a mapping")
    return loaded


def plain(value: Any) -> Any:
    """JSON that every client reads without loss: integers beyond 2^53 (priorities) as text."""
    if isinstance(value, dict):
        return {_text(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | float):
        return value
    return value if isinstance(value, int) and abs(value) <= _MAX_EXACT else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise BadInput("a number of thousands of digits")
    return timestamp(value) if isinstance(value, datetime) else str(value)


def timestamp(moment: datetime) -> str:
    """A column without time zone (it holds UTC) as arvados-ws writes it: RFC 3339, shortest."""
    text = moment.replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"
