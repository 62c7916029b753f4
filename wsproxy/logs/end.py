# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The end of a container's logs where the stream does not tell it: from Arvados' saved log.

Pure. Normally the container log publisher announces the end. A container that
ended before the stream's time, or never ran, has no such message; nor has one whose publishers
were away for long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from arvados_nats.contract.log_chunks import ContainerEnd, FileEnd
from arvados_nats.permissions import object_facts
from wsproxy.logs.frontier import Frontier
from wsproxy.logs.saved import ContainerState

GRACE_SECONDS = 60.0
"""How long after a container's end the publisher's own word is waited for."""
KEEP_SECONDS = 10.0
"""How long after it Keep may list what was saved before: 5 s, and clocks differ."""


def certain(state: ContainerState, *, heard: bool) -> bool:
    """Whether Arvados' word suffices that no more bytes will come.

    `heard`: some of the log is in the stream, so that a publisher is or was at work on it.
    """
    patience = KEEP_SECONDS if state.log and not heard else GRACE_SECONDS
    return state.final and _age(state) > patience


def rest(state: ContainerState, *, heard: bool) -> float:
    """Seconds for which more of a log is waited for, and its end, before a reader is told that all
    of it was sent: it was saved a moment ago."""
    coming = state.final and state.log and (state.state == "Complete" or not heard)
    return max(0.0, KEEP_SECONDS - max(0.0, _age(state))) if coming else 0.0


def _age(state: ContainerState) -> float:
    """Seconds since the container ended; one that does not say when did so long ago."""
    finished = object_facts.timestamp(state.finished_at) if state.finished_at else None
    now = time.time()  # noqa: TID251  (no permission hangs on it)
    return math.inf if finished is None else now - finished


def of_saved_log(
    container: str,
    state: ContainerState,
    sizes: Mapping[str, int],
    known: Mapping[str, Frontier],
) -> ContainerEnd:
    """The end of a container whose saved log has files of these sizes.

    `known` is how far the stream has them. What was streamed and not saved is kept, and marked not
    confirmed.
    """
    files = {
        name: FileEnd(frontier.epoch, frontier.edge, confirmed=False)
        for name, frontier in known.items()
    }
    for name, size in sizes.items():
        heard = known.get(name)
        epoch, edge = (heard.epoch, heard.edge) if heard else (0, 0)
        files[name] = FileEnd(epoch, max(size, edge), confirmed=size >= edge)
    return ContainerEnd(container, state.state, state.exit_code, files)
