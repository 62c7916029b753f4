# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a service remembers of users' grants, without any NATS."""

from __future__ import annotations

import pytest

from arvados_nats.permission_client import grants_cache
from arvados_nats.permission_client.grants_cache import GrantsCache


def test_changes_of_strangers_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told of everybody whom any replica of any service knows."""
    cache = GrantsCache(None)  # type: ignore[arg-type]
    for number in range(100):
        cache.forget(f"zzzzz-tpzed-{number:015}", 7, "version")
    cache.drop_unused(())
    assert len(cache._outdated) == 100  # an answer from before may be on its way
    monkeypatch.setattr(grants_cache, "_CROSSING", 0.0)
    cache.drop_unused(())
    assert not cache._outdated
