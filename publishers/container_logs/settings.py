# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings of the container log publisher: a block of the publishers' settings."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, SecretStr

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import streams
from arvados_nats.service.settings import Block
from publishers.container_logs.pace import Pace
from publishers.container_logs.publisher import Options
from publishers.container_logs.scan import Scan


class LogSettings(Block):
    """How container logs are read, and how long they are kept."""

    log_token: SecretStr = SecretStr("")
    """The token for the controller's log API: the SystemRootToken or another admin's. Without it
    container logs are not read; pushed ones still arrive."""

    log_poll_fast_seconds: float = Field(0.25, gt=0)
    """Between two looks at a log that somebody watches: a line is late by up to so much. A look is
    one call of the controller, for one file that grows; at every fourth, or where several grow,
    one for the sizes and one for each that has grown."""

    log_poll_slow_seconds: float = Field(5, gt=0)
    """Between two looks at a log that nobody watches: so much of it is lost when a node dies
    before its next checkpoint."""

    log_slow_looks_per_second: float = Field(20, gt=0)
    """Looks at all logs together that nobody watches. With more than 100 containers in this process
    the slow looks are further apart than `log_poll_slow_seconds`, and more can be lost."""

    log_calls: int = Field(2, gt=0)
    """Calls of the controller's log API at a time; up to four times as many while somebody watches
    more than these can show, and Arvados answers as quickly as it does to few. A controller hands
    the API server 8 requests at once (16 since Arvados 3.2, API.MaxConcurrentRailsRequests), users'
    own included: one replica of each service takes no more than that with all its calls, but for
    what nobody waits for."""

    log_scan_seconds: float = Field(2, gt=0)
    """Between two looks at the database for containers that began or ended without an event."""

    log_ended_minutes: float = Field(60, ge=0)
    """Logs of containers that ended up to so long ago are still published when they are not in
    the stream yet; older ones are read from Arvados by whoever wants them."""

    log_confirm_seconds: float = Field(15, ge=0)
    """How long after the end of a container its saved log is waited for before the end is marked
    as not confirmed. keep-web may show an old listing for 5 s."""

    log_push_patience_seconds: float = Field(10, ge=0)
    """How long a pushed file may stand still, though it has grown, before it is read instead."""

    logs_max_age_hours: int = Field(336, gt=0)
    """Log bytes older than this leave the stream; they are then read from Arvados."""

    logs_max_bytes: int = Field(streams.DEFAULT_LOG_LIMITS.max_bytes, gt=0)
    """The oldest log bytes leave the stream when it grows beyond so many bytes."""

    logs_replicas: int = Field(1, ge=1, le=5)
    """On how many NATS servers each chunk is kept: 3 in a cluster."""

    def admin_token(self) -> Token:
        """The token as it is now."""
        return Token(self.current().log_token.get_secret_value())

    @property
    def log_options(self) -> Options:
        return Options(
            pace=Pace(
                fast=self.log_poll_fast_seconds,
                slow=self.log_poll_slow_seconds,
                slow_looks=self.log_slow_looks_per_second,
                confirm=self.log_confirm_seconds,
                push=self.log_push_patience_seconds,
            ),
            limits=streams.StreamLimits(
                max_age=timedelta(hours=self.logs_max_age_hours),
                max_bytes=self.logs_max_bytes,
                replicas=self.logs_replicas,
            ),
            scan=Scan(self.log_scan_seconds, timedelta(minutes=self.log_ended_minutes)),
        )
