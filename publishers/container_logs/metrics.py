# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the container log publisher counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_NAME = "arvados_nats_publishers_log"

BYTES = Counter(f"{_NAME}_published_bytes", "Bytes of container logs stored in NATS.")
CHUNKS = Counter(f"{_NAME}_published_chunks", "Chunks of container logs stored in NATS.")
RETRIES = Counter(f"{_NAME}_publish_retries", "Chunks that had to be sent again or looked up.")
FENCED = Counter(
    f"{_NAME}_fenced",
    "Writes refused because another replica or the compute node had written to the file.",
)
CALLS = Counter(
    f"{_NAME}_controller_calls", "Calls to the controller's log API.", ["call", "outcome"]
)
CALL_SECONDS = Histogram(
    f"{_NAME}_controller_call_seconds",
    "How long calls to the controller's log API took, without the wait for their turn.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
POLLS = Counter(
    f"{_NAME}_polls", "Looks at the log of one container, by pace: fast while watched.", ["pace"]
)
TAILED = Gauge(f"{_NAME}_tailed_containers", "Containers whose log this replica reads.")
WATCHED = Gauge(f"{_NAME}_watched_containers", "Containers that somebody watches now.")
REPLICAS = Gauge(f"{_NAME}_replicas", "Container log publishers that share the containers.")
TAKEOVERS = Counter(
    f"{_NAME}_takeovers",
    "Containers whose log was continued where another replica, or an earlier run, left it.",
)
GAPS = Counter(
    f"{_NAME}_gaps", "Files that began anew, so that unread bytes of the old one may be lost."
)
UNCONFIRMED = Counter(
    f"{_NAME}_unconfirmed_ends", "Log files whose saved size is not what was streamed."
)
ENDS = Counter(f"{_NAME}_ends", "Containers whose log was published to its end.")
LAG_BYTES = Gauge(
    f"{_NAME}_lag_bytes", "Bytes that the controller shows and NATS does not hold yet, all files."
)
LAG_SECONDS = Histogram(
    f"{_NAME}_lag_seconds",
    "From the look that found new bytes of a file to their being stored.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
SKIPPED = Counter(f"{_NAME}_skipped_files", "Log files with a name that cannot be published.")
PUSHED_SIZES_DIFFER = Counter(
    f"{_NAME}_pushed_taken_over", "Pushed files that stopped short and were read to their end."
)
