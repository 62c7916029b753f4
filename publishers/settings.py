# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings of the publishers: the kernel's blocks, and one block for each part."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from arvados_nats.contract import streams
from arvados_nats.service.settings import (
    ArvadosSettings,
    Block,
    NatsSettings,
    OpsSettings,
    PostgresSettings,
)
from publishers.container_logs.settings import LogSettings
from publishers.events.event_source import Scans
from publishers.events.publisher import Options
from publishers.live.cursor import Options as LiveOptions
from publishers.permissions import publisher as permissions
from publishers.queue.publisher import Options as QueueOptions


class EventSettings(Block):
    """How rows of the logs table are read, and how long their events are kept."""

    events_max_age_hours: int = Field(336, gt=0)
    """Events older than this leave the stream; Arvados keeps its own log for 336 hours."""

    events_max_bytes: int = Field(streams.DEFAULT_EVENT_LIMITS.max_bytes, gt=0)
    """The oldest events leave the stream when it grows beyond so many bytes."""

    events_replicas: int = Field(1, ge=1, le=5)
    """On how many NATS servers each event is kept: 3 in a cluster."""

    events_fresh_start_minutes: float = Field(10, ge=0)
    """How far back an empty stream begins."""

    events_wide_minutes: float = Field(30, ge=1)
    """A transaction of Arvados that stays open for longer can lose its events. Longer costs memory
    and a longer start: 10 bytes and 30 microseconds for each row of that time."""

    live_catch_up_minutes: float = Field(5, ge=0)
    """After an interruption of the live publisher, users still get what is younger than this."""

    @property
    def live_options(self) -> LiveOptions:
        return LiveOptions(
            catch_up=timedelta(minutes=self.live_catch_up_minutes), replicas=self.events_replicas
        )

    @property
    def event_options(self) -> Options:
        return Options(
            scans=Scans(wide=timedelta(minutes=self.events_wide_minutes)),
            limits=streams.StreamLimits(
                max_age=timedelta(hours=self.events_max_age_hours),
                max_bytes=self.events_max_bytes,
                replicas=self.events_replicas,
            ),
            fresh_start=timedelta(minutes=self.events_fresh_start_minutes),
        )


class QueueSettings(Block):
    """How the dispatch queue is followed."""

    queue_scan_seconds: float = Field(1, gt=0)
    """How long a change that leaves no log row, such as a priority, can go unnoticed while
    containers wait. Shorter costs reads of the containers that wait or run."""

    queue_replicas: int = Field(1, ge=1, le=5)
    """On how many NATS servers the queue is kept: 3 in a cluster."""

    @property
    def queue_options(self) -> QueueOptions:
        return QueueOptions(scan=self.queue_scan_seconds, replicas=self.queue_replicas)


class SystemLogStreamSettings(Block):
    """How much of the system logs of machines is kept."""

    system_logs_max_age_hours: int = Field(336, gt=0)
    """System log records older than this leave the stream."""

    system_logs_max_bytes: int = Field(streams.DEFAULT_SYSTEM_LOG_LIMITS.max_bytes, ge=0)
    """The oldest records leave the stream when it grows beyond so many bytes; 0: there is no such
    stream."""

    system_logs_replicas: int = Field(1, ge=1, le=5)
    """On how many NATS servers each record is kept: 3 in a cluster."""

    @property
    def system_log_limits(self) -> streams.StreamLimits:
        return streams.StreamLimits(
            max_age=timedelta(hours=self.system_logs_max_age_hours),
            max_bytes=self.system_logs_max_bytes,
            replicas=self.system_logs_replicas,
        )


class PermissionSettings(Block):
    """How changes of permission are noticed."""

    role_groups_visible_to_all: bool | None = None
    """Arvados' `Users.RoleGroupsVisibleToAll`, which no controller exports; from config.yml where
    that is given. When not known, Arvados is asked about each role group with the reader's token.
    On where Arvados has it off shows role groups to users who may not see them."""

    grants_round_seconds: float = Field(60, gt=0)
    """How long a change of permission that left no log row can go unnoticed. Shorter costs reads
    of everybody's rows in `materialized_permissions`."""

    token_sweep_seconds: float = Field(3, gt=0)
    """How long a logout can go unnoticed."""

    @property
    def permission_options(self) -> permissions.Options:
        return permissions.Options(
            role_groups_visible=self.role_groups_visible_to_all,
            round=self.grants_round_seconds,
            sweep=self.token_sweep_seconds,
        )


class Settings(
    NatsSettings,
    ArvadosSettings,
    PostgresSettings,
    OpsSettings,
    EventSettings,
    PermissionSettings,
    QueueSettings,
    SystemLogStreamSettings,
    LogSettings,
):
    """Everything that `arvados-nats publishers` reads; each part uses what it needs."""

    postgres_pool: int = Field(4, ge=1)
    """Connections to PostgreSQL at most, beside one that listens."""
