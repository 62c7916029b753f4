# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Refusals are counted; good logins never are."""

from __future__ import annotations

from arvados_nats.arvados.refusal_limit import Allowance, RefusalLimit


def test_a_burst_is_allowed_and_refills() -> None:
    """After `burst` refusals the key is exhausted, and gets `per_second` more with time."""
    limit = RefusalLimit(Allowance(burst=3, per_second=0.5))
    for _ in range(3):
        assert not limit.exhausted("key", now=100.0)
        limit.count("key", now=100.0)
    assert limit.exhausted("key", now=100.0)
    assert limit.exhausted("key", now=100.0 - 50)
    assert not limit.exhausted("key", now=102.1)
    assert not limit.exhausted("other", now=100.0)
