# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a request over HTTP says beside its path: the query, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from starlette.datastructures import QueryParams

from arvados_nats.errors import BadInput


def only(query: Mapping[str, str], *known: str) -> None:
    """BadInput names a field that is not known, or stands twice: it would be another request."""
    if isinstance(query, QueryParams):
        times = Counter(name for name, _ in query.multi_items())
        if twice := [name for name in times if times[name] > 1]:
            raise BadInput(f"twice: {twice[0][:40]!r}")
    if unknown := sorted(set(query) - set(known)):
        raise BadInput(f"unknown: {unknown[0][:40]!r}; known are {', '.join(known)}")


def has_body(headers: Mapping[str, str]) -> bool:
    """Whether something follows the headers."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def nothing_behind(headers: Mapping[str, str]) -> None:
    """BadInput where something follows: while a long answer is sent it would be read, however much
    and fast it comes."""
    if has_body(headers):
        raise BadInput("send nothing behind the headers")
