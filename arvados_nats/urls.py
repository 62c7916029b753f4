# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The parts of an address, whatever it is.

Pure.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

_NONE = SplitResult("", "", "", "", "")


def split(address: str) -> SplitResult:
    """As `urlsplit` does, which raises ValueError for some; of those there are no parts, and no
    host, which whoever needs one looks at anyway."""
    try:
        return urlsplit(address)
    except ValueError:
        return _NONE
