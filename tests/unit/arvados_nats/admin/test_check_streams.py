# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What `arvados-nats check streams` says of what JetStream answers."""

from __future__ import annotations

from typing import Any

import pytest

from arvados_nats.admin.check_streams import examine

GIB = 1024**3


def info(cluster: dict[str, Any] | None = None, *, copies: int = 3, size: int = GIB) -> Any:
    """STREAM.INFO as a server of a cluster gives it, or without `cluster` as one alone."""
    return {
        "config": {"num_replicas": copies, "max_bytes": size},
        "state": {"bytes": 1000},
        "cluster": cluster,
    }


def account(limit: int = -1) -> Any:
    """The account's INFO."""
    return {"limits": {"max_storage": limit}}


def peer(**more: Any) -> dict[str, Any]:
    """A copy that is well, but for what is given."""
    return {"name": "n2", "current": True, **more}


WHOLE = {"name": "c", "leader": "n1", "replicas": [peer(), peer(name="n3")]}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (info(WHOLE), None),
        (info({"leader": "alone"}, copies=1), None),
        (info(copies=1), None),
        (None, "it does not exist yet"),
        (info({**WHOLE, "leader": ""}), "it has no leader"),
        (info({"name": "c", "leader": "n1"}, copies=1), "kept on one server of a cluster"),
        (info({**WHOLE, "replicas": [peer(offline=True)]}), "its copy on n2 is away"),
        (info({**WHOLE, "replicas": [peer(current=False, lag=7)]}), "n2 is 7 messages behind"),
    ],
)
def test_a_stream_that_is_not_whole_is_told(found: Any, told: str | None) -> None:
    """One row for each thing that can be wrong with it."""
    wrong = examine({"S": found}, account())["S"]
    assert len(wrong) == (told is not None)
    assert told is None or told in wrong[0]


@pytest.mark.parametrize(
    ("limit", "fits"), [(-1, True), (6 * GIB, True), (6 * GIB - 1, False), (0, False)]
)
def test_every_copy_counts_against_the_account(limit: int, fits: bool) -> None:
    """Two streams of 1 GiB with three copies need 6 GiB."""
    wrong = examine({"A": info(WHOLE), "B": info(WHOLE)}, account(limit))["storage"]
    assert bool(wrong) is not fits
    assert fits or "may grow to 6GB" in wrong[0]


def test_a_stream_without_a_bound_counts_nothing() -> None:
    """-1 is no size."""
    assert examine({"A": info(WHOLE, size=-1)}, account(0))["storage"] == []


@pytest.mark.parametrize(("free", "fits"), [(2 * GIB - 2000, True), (2 * GIB - 2001, False)])
def test_one_copy_of_each_stream_must_fit_the_disk(free: int, fits: bool) -> None:
    """What is stored already takes no more room."""
    wrong = examine({"A": info(WHOLE), "B": info(WHOLE)}, account(), (free, 4 * GIB))["disk"]
    assert bool(wrong) is not fits
    assert fits or "may grow to 2.0 GB, and have room for 2.0 GB" in wrong[0]


def test_a_disk_that_others_fill_is_told() -> None:
    """The streams have all that they may take; a server that cannot write stops."""
    wrong = examine({"A": info(WHOLE)}, account(), (3 * GIB, 100 * GIB))["disk"]
    assert wrong == ["97% of it are in use: make room, or give NATS a disk of its own"]


def test_a_disk_that_is_elsewhere_is_not_looked_at() -> None:
    """Only who runs on the server's machine can."""
    assert "disk" not in examine({"A": info(WHOLE)}, account())
