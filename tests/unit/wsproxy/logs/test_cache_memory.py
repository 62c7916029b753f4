# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a bound says is what a process grows by: each cache, ring and book filled to its bound (M1).

The table is that of docs/capacity.md; the sum for each service stays below the chart's limit.
"""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from publishers.events.seen_rows import KnownRows
from tests.support.made_events import made
from wsproxy.events.recent import Recent
from wsproxy.logs.history import _CACHE_BYTES, LogHistory
from wsproxy.logs.pieces import PIECE_BYTES, Piece
from wsproxy.logs.place import LogPlace
from wsproxy.logs.recent_bytes import RecentBytes
from wsproxy.logs.stored import _PLACES, StoredLogs

MIB = 1024 * 1024


def _properties(number: int) -> dict[str, Any]:
    """As much as an update of a collection carries."""
    attributes = {
        "name": f"sample-{number:08d}.fastq.gz",
        "owner_uuid": f"zzzzz-j7d0g-{number:015d}",
        "portable_data_hash": f"{number:032x}+1234",
        "properties": {"sample": f"S{number}", "lane": number % 8, "kind": "reads"},
        "modified_at": "2026-01-02T03:04:05.123456789Z",
        "is_trashed": False,
    }
    return {"old_attributes": attributes, "new_attributes": {**attributes, "name": f"n{number}"}}


def _recent() -> Recent:
    recent = Recent()
    for number in range(1, 12_001):
        recent.add(made(number, f"zzzzz-4zz18-{number:015d}", properties=_properties(number)))
    assert len(recent) > 5_000
    return recent


def _small_events() -> Recent:
    recent = Recent()
    for number in range(1, 10_001):
        recent.add(made(number, f"zzzzz-4zz18-{number:015d}"))
    assert len(recent) == 10_000
    return recent


_LINE = b"2026-01-02T03:04:05.123456789Z a line of a log, as long as they are\n"


def _log_pieces(size: int = PIECE_BYTES, count: int = 2 * _CACHE_BYTES // PIECE_BYTES) -> object:
    history = LogHistory(cast("Any", None), cast("Any", None))
    data = (_LINE * (size // len(_LINE)))[:size]
    for number in range(count):
        container = f"zzzzz-dz642-{number % 200:015d}"
        piece = Piece(container, "stdout.txt", 0, number * size, bytes(bytearray(data)))
        assert piece.message.frame
        history.keep(piece)
    return history


def _last_bytes() -> RecentBytes:
    recent, line = RecentBytes(), bytes(1000)
    for number in range(150):
        for file in range(1000):
            recent.append(file, LogPlace(0, number * len(line)), line)
    return recent


def _log_places() -> StoredLogs:
    stored = StoredLogs(cast("Any", None))
    for number in range(_PLACES):
        subject = f"arvados.logs.zzzzz-dz642-{number:015d}.stdout_txt"
        stored._places[subject, f"stdout-{number}.txt", LogPlace(0, number)] = number, True
    return stored


def _seen_rows() -> KnownRows:
    now = datetime.now(UTC).replace(tzinfo=None)
    known = KnownRows(now - timedelta(minutes=30))
    for number in range(100_000):
        at = now - timedelta(seconds=number % 1800)
        known.add(number, f"zzzzz-57u5n-{number:015d}", at)
    return known


CACHES: dict[str, tuple[Callable[[], object], float]] = {
    "wsproxy: newest events, of one collection each": (_recent, 16),
    "wsproxy: 10,000 small events": (_small_events, 16),
    "wsproxy: pieces of logs": (_log_pieces, 40),
    "wsproxy: last bytes of 1,000 log files": (_last_bytes, 40),
    "wsproxy: pieces of one line": (lambda: _log_pieces(len(_LINE), 60_000), 40),
    "wsproxy: places in log streams": (_log_places, 12),
    "publishers: rows of half an hour, 100,000": (_seen_rows, 3),
}
"""What fills each to its bound, and how many MiB it may take then."""


def grown(fill: Callable[[], object]) -> tuple[object, float]:
    """What was filled, and the MiB that it holds."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        filled = fill()
        gc.collect()
        return filled, (tracemalloc.get_traced_memory()[0] - before) / MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CACHES)
def test_a_full_cache_holds_what_its_bound_says(name: str) -> None:
    """Measured, not counted."""
    fill, bound = CACHES[name]
    filled, held = grown(fill)
    print(json.dumps({"cache": name, "MiB": round(held, 1)}))  # noqa: T201  (for docs/capacity.md)
    assert filled is not None
    assert held <= bound
