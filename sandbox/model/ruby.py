# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Values as Ruby's `inspect` shows them, for error texts that quote them."""

from __future__ import annotations

from typing import Any

from sandbox.model import records

_WORDS = {None: "nil", True: "true", False: "false"}


def inspect(value: Any) -> str:
    """`nil`, `0.25`, `"text"`, `["a"]`, `{"k"=>1}`."""
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, str):
        return records.dump(value)
    if isinstance(value, list):
        return f"[{', '.join(inspect(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inspect(k)}=>{inspect(v)}" for k, v in value.items()) + "}"
    return str(value)
