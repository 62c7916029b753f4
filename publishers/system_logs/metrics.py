# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the system log publisher shows to an operator."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

_NAME = "arvados_nats_publishers_system_logs"

RECORDS = Counter(f"{_NAME}_records", "Records stored in ARVADOS_SYSLOG.")
SKIPPED = Counter(
    f"{_NAME}_skipped",
    "Lines that are in no message: `unreadable` is no JSON object, `too_long` is longer than a line"
    " may be, `no_room` counts bytes of a pipe for which there was no room on disk.",
    ["reason"],
)
SHORTENED = Counter(f"{_NAME}_shortened", "Records stored without their end: too large.")
CURSOR_LOST = Counter(
    f"{_NAME}_cursor_lost", "Times at which the journal had dropped records that were not read yet."
)
JOURNAL_STARTS = Counter(f"{_NAME}_journal_starts", "Times journalctl was started.")
LAG_SECONDS = Gauge(f"{_NAME}_lag_seconds", "Age of the last record when it was stored.")
