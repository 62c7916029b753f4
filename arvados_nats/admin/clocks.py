# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whether another machine's clock agrees with ours, told from one answer of it.

Pure. Arvados' database says when a token ends, authcallout writes that as `exp` into a user JWT,
and the NATS server judges it by its own clock without leeway (docs/facts/nats-callout.md 1); the
server in turn gives its questions an `exp`, which authcallout judges with a minute's leeway.
"""

from __future__ import annotations

TOLERANCE = 5.0
"""Seconds. With more, tokens work for noticeably longer or shorter than Arvados says."""
_NO_LOGIN = 60.0


def ahead(asked: float, theirs: float, answered: float, resolution: float = 0.0) -> float:
    """Seconds by which a clock is at least ahead of ours; negative: behind.

    It was read between `asked` and `answered`, and shows only multiples of `resolution`.
    """
    if theirs > answered:
        return theirs - answered
    return min(0.0, theirs + resolution - asked)


def wrong(seconds: float) -> str | None:
    """What is wrong with a clock that is so far ahead, or None."""
    if abs(seconds) <= TOLERANCE:
        return None
    more = "; no login to NATS can succeed" if abs(seconds) >= _NO_LOGIN else ""
    return (
        f"it is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine's:"
        f" tokens end at the wrong time{more}; let NTP set both"
    )
