# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the queue publisher shows to an operator."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_NAME = "arvados_nats_publishers_queue"

LEADING = Gauge(f"{_NAME}_leading", "1 while this process writes the queue, 0 while it stands by.")
CONTAINERS = Gauge(f"{_NAME}_containers", "Containers in Queued, Locked or Running.")
CHANGES = Counter(
    f"{_NAME}_changes", "Keys of the bucket ARVADOS_QUEUE that were put or deleted.", ["what"]
)
LOOK_SECONDS = Histogram(
    f"{_NAME}_look_seconds",
    "How long it took to read what may have changed, of all containers or of those named.",
    ["what"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
UNREADABLE = Counter(f"{_NAME}_unreadable", "Columns of containers that are no JSON or too large.")
