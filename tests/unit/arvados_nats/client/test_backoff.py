# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When a client comes back."""

from __future__ import annotations

from arvados_nats.client.backoff import Backoff


def test_an_outage_of_a_night_ends_no_client() -> None:
    """Of some four hours already: each attempt waits 15 s on the average."""
    backoff = Backoff(None, None)
    for _ in range(3000):
        backoff.begin()
        assert 0 <= backoff.delay("nobody is there") <= 30
