# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""All numbers that wsproxy exports.

Names that begin with `arvados_ws_` are those of arvados-ws, kept where they still mean something
(docs/facts/arvados.md 7); the others are ours.
"""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge, Histogram

_OURS = "arvados_nats_wsproxy"


def since(moment: float) -> float:
    """Seconds since a moment, by this machine's clock: for figures, never for a permission."""
    return time.time() - moment  # noqa: TID251


sockets = Gauge("arvados_ws_sockets", "Connections now open, by protocol version.", ["version"])
sinks = Gauge("arvados_ws_sinks", "Subscriptions to the event stream that are live.")
sinks_blocked = Gauge(
    "arvados_ws_sinks_blocked", "Connections that are behind and catch up from the stream."
)
replays_waiting = Gauge(
    "arvados_ws_replays_waiting", "Subscriptions that wait until the next part of the past is read."
)
events_in = Counter("arvados_ws_events_in", "Events taken from the stream.")
events_out = Counter("arvados_ws_events_out", "Events written to connections.")


class Sum:
    """What the hot path adds to a counter, which takes a lock: told to it once a second."""

    __slots__ = ("_counter", "waiting")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.waiting = 0

    def tell(self) -> None:
        """Add what has gathered to the counter."""
        waiting, self.waiting = self.waiting, 0
        self._counter.inc(waiting)


sent = Sum(events_out)
queue_len = Gauge("arvados_ws_queue_len", "Bytes that wait for all connections together.")
queue_cap = Gauge("arvados_ws_queue_cap", "Bytes that may wait for all connections together.")
event_newest = Gauge(
    f"{_OURS}_event_newest_timestamp_seconds",
    "When the row of the newest event was made that this process has handed to its readers.",
)
queue_delay = Gauge(
    "arvados_ws_queue_delay_seconds", "Age of the newest event when it was dispatched, by its row."
)
event_lag = Histogram(
    f"{_OURS}_event_lag_seconds",
    "Time from an event's row until it was handed to the sockets, of the oldest of those that were"
    " handed over together; long transactions of Arvados count in.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
db_max_connections = Gauge(
    "arvados_ws_db_max_connections", "Always 0: this service has no database connection."
)
db_open_connections = Gauge(
    "arvados_ws_db_open_connections",
    "Always 0: this service has no database connection.",
    ["inuse"],
)
for _inuse in ("0", "1"):
    db_open_connections.labels(_inuse).set(0)

bad_events = Counter(f"{_OURS}_bad_events", "Messages of the stream that are no event; left out.")
holes = Counter(f"{_OURS}_holes", "Holes in the live messages, filled by reading the stream.")
repaired = Counter(f"{_OURS}_repaired_events", "Events found by reading the stream again.")
blocks = Counter(f"{_OURS}_history_blocks", "Blocks of old events read for readers behind.")
permission_gets = Counter(
    f"{_OURS}_permission_gets", "Objects asked of Arvados because the rule could not tell."
)
undecided = Counter(
    f"{_OURS}_undecided_events", "Questions that Arvados never answered; their events are left out."
)
lags = Counter(f"{_OURS}_lags", "Times that a connection fell behind and went back to the stream.")
refused_tokens = Counter(
    f"{_OURS}_refused_tokens", "Connections whose token Arvados does not accept; they get nothing."
)
ended_tokens = Counter(f"{_OURS}_ended_tokens", "Tokens that died with connections open.")
refused_sockets = Counter(
    f"{_OURS}_refused_sockets", "Connections refused before they began.", ["cause"]
)
cut_sockets = Counter(f"{_OURS}_cut_sockets", "Connections ended by us.", ["cause"])
bad_commands = Counter(f"{_OURS}_bad_commands", "Messages of clients answered with an error.")
dispatch_seconds = Histogram(
    f"{_OURS}_dispatch_seconds",
    "Time to find the readers of an event and write to them.",
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1),
)
log_hubs = Gauge(f"{_OURS}_log_feeds", "Containers whose logs somebody reads.")
log_frames = Counter(f"{_OURS}_log_frames", "Log frames written to readers that are live.")
log_lags = Counter(
    f"{_OURS}_log_lags", "Times that a log reader fell behind and went back to history."
)
log_folder = Counter(
    f"{_OURS}_log_folder_requests",
    "Questions for log folders, answered here or left to the controller.",
    ["outcome"],
)
native_requests = Counter(
    f"{_OURS}_native_requests",
    "Requests of native NATS clients for history, by what they asked for and what came of it.",
    ["subject", "outcome"],
)
native_bytes = Counter(f"{_OURS}_native_bytes", "Bytes of history sent to native NATS clients.")
