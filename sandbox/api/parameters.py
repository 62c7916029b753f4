# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A request's parameters: query, urlencoded or JSON body, and what they stand for.

Pure. As in Rails, query and body are one set; JSON text inside a form or a query is decoded where a
structure is wanted (golden/api.json, exchanges `groups.create.*`, `post.method_*`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from sandbox.api.errors import argument_error
from sandbox.model.refusal import raised

Parameters = dict[str, Any]

_MAX_ITEMS = 1000
_DEFAULT_LIMIT = 100


def query(text: str) -> Parameters:
    """The parameters of a query string or an urlencoded body."""
    return dict(parse_qsl(text, keep_blank_values=True))


def body(content_type: str, data: bytes) -> Parameters:
    """The parameters of a request body. A JSON array carries none."""
    if not data:
        return {}
    if content_type.startswith("application/json"):
        try:
            decoded = msgspec.json.decode(data)
        except msgspec.DecodeError:
            text = "Error occurred while parsing request parameters"
            raise raised("ActionDispatch::Http::Parameters::ParseError", text) from None
        return decoded if isinstance(decoded, dict) else {}
    if content_type.startswith("application/x-www-form-urlencoded"):
        return query(data.decode(errors="replace"))
    return {}


def attributes(
    parameters: Mapping[str, Any], wrapper: str, columns: Mapping[str, str]
) -> Parameters:
    """The attributes of a create or update: under `wrapper`, or at the top level."""
    wrapped = parameters.get(wrapper)
    if wrapped is None:
        return {name: value for name, value in parameters.items() if name in columns}
    if isinstance(wrapped, str):
        wrapped = _decoded(wrapped)
    if not isinstance(wrapped, dict):
        raise raised("Oj::ParseError", "unexpected character (after ) at line 1, column 1")
    return wrapped


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def flag(parameters: Mapping[str, Any], name: str) -> bool:
    """A yes or no, as JSON or as text."""
    return str(parameters.get(name, "")).lower() in ("true", "1", "t", "yes", "y")


def array(parameters: Mapping[str, Any], name: str) -> list[Any] | None:
    """A list, as JSON or as JSON text; None when it is not given."""
    value = parameters.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = _decoded(value)
    if not isinstance(value, list):
        raise argument_error(f'Could not parse "{name}" param as an array')
    return value


def words(parameters: Mapping[str, Any], name: str) -> list[str]:
    """A list of words, as JSON or as plain text parted by commas (`order`, `include`)."""
    value = parameters.get(name)
    if isinstance(value, str) and not value.startswith("["):
        return [word.strip() for word in value.split(",") if word.strip()]
    return [str(word) for word in array(parameters, name) or []]


def limit(parameters: Mapping[str, Any]) -> int:
    """How many items at most; never more than 1000."""
    return min(_whole(parameters, "limit", _DEFAULT_LIMIT), _MAX_ITEMS)


def offset(parameters: Mapping[str, Any]) -> int:
    """How many items to leave out first."""
    return _whole(parameters, "offset", 0)


def _whole(parameters: Mapping[str, Any], name: str, default: int) -> int:
    value = parameters.get(name)
    if value is None or value == "":
        return default
    if not str(value).isdecimal():
        raise argument_error(f"Invalid value for {name} parameter")
    return int(value)
