# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When Arvados' word suffices that a log is over, and what the end then says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from arvados_nats.log_chunks import FileEnd
from wsproxy import log_end
from wsproxy.log_arvados import ContainerState
from wsproxy.log_frontier import Frontier


def state(
    state: str = "Complete", *, log: str | None = "pdh", ago: float | None = 1.0
) -> ContainerState:
    finished = datetime.now(UTC) - timedelta(seconds=ago) if ago is not None else None
    return ContainerState(state, 0, log, finished.isoformat() if finished else None)


@pytest.mark.parametrize(
    ("known", "heard", "certain"),
    [
        (state("Running"), False, False),
        (state("Queued", log=None, ago=None), False, False),
        (state("Locked", log=None, ago=None), False, False),
        (state("Complete"), False, True),  # saved, and the stream has nothing: nobody is at work
        (state("Complete"), True, False),  # its publisher is about to say so
        (state("Complete", ago=61.0), True, True),
        (state("Cancelled", log=None), False, False),  # streamed bytes may still come
        (state("Cancelled", log=None, ago=61.0), False, True),
        (state("Cancelled", log=None, ago=None), False, True),
    ],
)
def test_when_it_is_certain(known: ContainerState, heard: bool, certain: bool) -> None:
    """A final state, and nobody left who would announce the end."""
    assert log_end.certain(known, heard=heard) is certain


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
