# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The query of a request over HTTP."""

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
