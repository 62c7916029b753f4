# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the permission publisher shows to an operator."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_NAME = "arvados_nats_publishers_permissions"

ANSWER_SECONDS = Histogram(
    f"{_NAME}_answer_seconds",
    "How long a question about grants or tokens took, without the wait for its turn.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
UNANSWERED = Counter(f"{_NAME}_unanswered", "Questions that could not be answered.")
LEADING = Gauge(f"{_NAME}_leading", "1 while this process tells of changes, 0 while it stands by.")
WATCHED = Gauge(f"{_NAME}_watched_users", "Users whose grants somebody relies on.")
HINTS = Counter(f"{_NAME}_hints", "Events that may have changed what somebody reads.")
READS = Counter(f"{_NAME}_reads", "Users read again because something may have changed.")
CHANGES = Counter(
    f"{_NAME}_changes", "Changes of a user's grants that were told, by cause.", ["cause"]
)
SWEEPS = Counter(f"{_NAME}_token_sweeps", "Looks at the live tokens.")
TOKENS_GONE = Counter(f"{_NAME}_tokens_gone", "Tokens told gone, by reason.", ["reason"])
