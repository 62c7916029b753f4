# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The query of a request over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from arvados_nats.errors import BadInput


def only(query: Mapping[str, str], *known: str) -> None:
    """BadInput names a field that is not known: misspelled, it would be another request."""
    if unknown := sorted(set(query) - set(known)):
        raise BadInput(f"unknown: {unknown[0][:40]!r}; known are {', '.join(known)}")
