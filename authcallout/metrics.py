# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the callout service counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

logins = Counter(
    "arvados_nats_authcallout_logins_total",
    "Login attempts, by outcome: admitted, refused, dropped without an answer, or late: not opened,"
    " since their clients had given up.",
    ["outcome"],
)
seconds = Histogram(
    "arvados_nats_authcallout_login_seconds",
    "Time from a server's question to our answer.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5),
)
overflows = Counter(
    "arvados_nats_authcallout_overflows_total",
    "Logins that were let in without any live subject, since more was shared with the user than a"
    " login can carry.",
)
under_way = Gauge("arvados_nats_authcallout_logins_under_way", "Logins being decided right now.")
connections = Gauge(
    "arvados_nats_authcallout_connections", "Connections that came in by an Arvados token."
)
cut = Counter(
    "arvados_nats_authcallout_cut_total",
    "Connections cut: a permission changed, or a login was not decided in time.",
    ["cause"],
)
