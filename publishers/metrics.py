# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Every figure that the event and live publishers show to an operator."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LAG_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800)

EVENTS_READ = Counter(
    "arvados_nats_publishers_events_read_total",
    "Rows of Arvados' logs table that were read; each is published or counted as skipped.",
)
EVENTS_PUBLISHED = Counter(
    "arvados_nats_publishers_events_published_total",
    "Rows of Arvados' logs table that were stored in the stream ARVADOS_EVENTS.",
)
EVENTS_SKIPPED = Counter(
    "arvados_nats_publishers_events_skipped_total",
    "Rows and notifications that were not published, by reason: bad_payload (a NOTIFY that is no"
    " id), no_row (a NOTIFY whose row does not exist), bad_uuid (the row's own uuid is none),"
    " undecodable (properties that are neither JSON nor old YAML), duplicate (notified again),"
    " too_old (older than the window and than the stream), too_large (over the stream's largest"
    " message), failed (a mistake of ours).",
    ["reason"],
)
EVENT_LAG = Histogram(
    "arvados_nats_publishers_event_lag_seconds",
    "Time from a row's created_at to the acknowledgement that it is stored; long transactions of"
    " Arvados count in.",
    buckets=_LAG_BUCKETS,
)
EVENT_NEWEST = Gauge(
    "arvados_nats_publishers_event_newest_timestamp_seconds",
    "created_at of the newest row that was published, as seconds since 1970.",
)
EVENT_ROW = Gauge(
    "arvados_nats_publishers_event_row_timestamp_seconds",
    "When the newest row of the last hour that is older than 5 s was made in Arvados' logs table.",
)
EVENT_STORED = Gauge(
    "arvados_nats_publishers_event_stored_timestamp_seconds",
    "When the row of the newest event in the stream was made, as every replica sees it.",
)
EVENTS_LEADING = Gauge(
    "arvados_nats_publishers_events_leading",
    "1 while this process publishes events, 0 while it stands by for another one.",
)
EVENT_RESENDS = Counter(
    "arvados_nats_publishers_event_resends_total",
    "Times that messages had to be sent to the stream again after a failure.",
)
LIVE_LAG = Histogram(
    "arvados_nats_publishers_live_lag_seconds",
    "Time from a message's place in the stream until it is on its way below arvados.live, of the"
    " oldest of each batch, by what it carries.",
    ["what"],
    buckets=_LAG_BUCKETS,
)
LIVE_PUBLISHED = Counter(
    "arvados_nats_publishers_live_published_total",
    "Messages republished below arvados.live for clients with a user's token, by what they carry.",
    ["what"],
)
LIVE_SKIPPED = Counter(
    "arvados_nats_publishers_live_skipped_total",
    "Stored messages that no user may see below arvados.live, by reason: kind (its rule is more"
    " than owner and object), nobody (the audience is empty or in the trash), bad (no event, no run"
    " of log bytes), unsendable (NATS would not take it), failed (a mistake of ours).",
    ["reason"],
)
ROOM_MADE = Counter(
    "arvados_nats_publishers_room_made_messages_total",
    "Messages of the largest sender of a stream that were removed because it was nearly full, so"
    " that those of others stay, by stream.",
    ["stream"],
)


def skipped(reason: str, count: int = 1) -> None:
    """Count rows or notifications of Arvados that are not published."""
    if count:
        EVENTS_SKIPPED.labels(reason).inc(count)
