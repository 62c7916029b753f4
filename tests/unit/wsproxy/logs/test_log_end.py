# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When Arvados' word suffices that a log is over, and what the end then says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from arvados_nats.contract.log_chunks import FileEnd
from wsproxy.logs import end as log_end
from wsproxy.logs.frontier import Frontier
from wsproxy.logs.saved import ContainerState


def state(
    state: str = "Complete", log: str | None = "pdh", ago: float | None = 1.0
) -> ContainerState:
    """Ended so many seconds ago."""
    finished = datetime.now(UTC) - timedelta(seconds=ago) if ago is not None else None
    return ContainerState(state, 0, log, finished.isoformat() if finished else None)


@pytest.mark.parametrize(
    ("name", "log", "ago", "heard", "certain"),
    [
        ("Running", "pdh", None, False, False),
        ("Queued", None, None, False, False),
        ("Locked", None, None, False, False),
        ("Complete", "pdh", 1, False, False),  # Keep may list what was saved before
        ("Complete", "pdh", 11, False, True),  # saved, and nobody is at work on it
        ("Complete", "pdh", 1, True, False),  # its publisher is about to say so
        ("Complete", "pdh", 61, True, True),
        ("Cancelled", None, 1, False, False),  # streamed bytes may still come
        ("Cancelled", None, 61, False, True),
        ("Cancelled", None, None, False, True),
    ],
)
def test_when_it_is_certain(
    name: str, log: str | None, ago: float | None, heard: bool, certain: bool
) -> None:
    """A final state, and nobody left who would announce the end."""
    assert log_end.certain(state(name, log, ago), heard=heard) is certain


@pytest.mark.parametrize(
    ("name", "log", "ago", "heard", "comes"),
    [
        ("Running", "pdh", None, True, False),
        ("Complete", "pdh", 1, False, True),
        ("Complete", "pdh", 1, True, True),
        ("Complete", "pdh", -30, True, True),  # the clock of Arvados is ahead
        ("Complete", "pdh", 11, True, False),
        ("Complete", "pdh", None, True, False),
        ("Complete", None, 1, True, False),
        ("Cancelled", "pdh", 1, False, True),
        ("Cancelled", "pdh", 1, True, False),  # a checkpoint: what follows it is lost
        ("Cancelled", None, 1, False, False),
    ],
)
def test_when_the_rest_is_on_its_way(
    name: str, log: str | None, ago: float | None, heard: bool, comes: bool
) -> None:
    """A log that was saved a moment ago is waited for, and not for long."""
    rest = log_end.rest(state(name, log, ago), heard=heard)
    assert rest <= log_end.KEEP_SECONDS
    assert (rest > 0) is comes


def test_what_was_streamed_is_never_taken_back() -> None:
    """A file that was saved shorter, or not at all, keeps its bytes and is not confirmed."""
    known = {
        "same": Frontier(epoch=0, end=10),
        "saved more": Frontier(epoch=1, end=10),
        "saved less": Frontier(epoch=0, end=10),
        "not saved": Frontier(epoch=2, end=8, held=b"\xc3"),
    }
    sizes = {"same": 10, "saved more": 12, "saved less": 7, "only saved": 3, "empty": 0}
    end = log_end.of_saved_log("c", state("Cancelled"), sizes, known)
    assert end.files == {
        "same": FileEnd(0, 10, True),
        "saved more": FileEnd(1, 12, True),
        "saved less": FileEnd(0, 10, False),
        "not saved": FileEnd(2, 9, False),
        "only saved": FileEnd(0, 3, True),
        "empty": FileEnd(0, 0, True),
    }
    assert (end.state, end.exit_code) == ("Cancelled", 0)
