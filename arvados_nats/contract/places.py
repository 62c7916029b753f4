# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where an object is, as events and answers say it: the groups that own it, and what is above."""

from __future__ import annotations

import msgspec

GROUP_INFIX = "-j7d0g-"
USER_INFIX = "-tpzed-"


class Place(msgspec.Struct, frozen=True, gc=False):
    """A group that owns things: what is above it, and its state.

    `above` are the owners from its own up to the user in whose home it is. `trash_at` is the
    earliest trash time of it and of the groups above it; `frozen`: it, or one of them, is.
    """

    uuid: str
    above: tuple[str, ...] = ()
    trash_at: float | None = None
    frozen: bool = False
