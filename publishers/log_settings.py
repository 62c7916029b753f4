# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings of the container log publisher: a block of the publishers' settings."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr

from arvados_nats.settings import Block
from publishers.log_tailer import Pace


def _number(value: Any) -> Any:
    """Environment variables are text, and pydantic takes only numbers for seconds."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Seconds = Annotated[timedelta, BeforeValidator(_number)]


class LogSettings(Block):
    """How container logs are read. Durations are in seconds, or as `PT0.25S`."""

    log_token: SecretStr = SecretStr("")
    """The token for the controller's log API: the SystemRootToken or another admin's. Without it
    container logs are not read; pushed ones still arrive."""

    log_poll_fast: Seconds = Field(timedelta(milliseconds=250), gt=timedelta(0))
    """Between two looks at a log that somebody watches: the delay of a line is up to this long."""

    log_poll_slow: Seconds = Field(timedelta(seconds=5), gt=timedelta(0))
    """Between two looks at a log that nobody watches: as much of it can be lost with a node."""

    log_calls: int = Field(16, gt=0)
    """Calls of the controller's log API at a time. Arvados' MaxConcurrentRequests is 64 for all."""

    log_scan: Seconds = Field(timedelta(seconds=2), gt=timedelta(0))
    """Between two looks at the database for containers that began or ended without an event."""

    log_ended_window: Seconds = timedelta(hours=1)
    """Logs of containers that ended up to this long ago are still published when they are not in
    the stream yet; older ones are read from Arvados by whoever wants them."""

    log_confirm: Seconds = timedelta(seconds=15)
    """How long after the end of a container its saved log is waited for before the end is marked
    as not confirmed. keep-web may show an old listing for 5 s."""

    log_push_patience: Seconds = timedelta(seconds=10)
    """How long a pushed file may stand still, though it has grown, before it is read instead."""

    @property
    def log_pace(self) -> Pace:
        return Pace(
            fast=self.log_poll_fast.total_seconds(),
            slow=self.log_poll_slow.total_seconds(),
            confirm=self.log_confirm.total_seconds(),
            push=self.log_push_patience.total_seconds(),
        )
