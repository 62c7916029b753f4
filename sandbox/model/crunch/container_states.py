# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The states of a container, and the parts of its description that are always there."""

from __future__ import annotations

QUEUED, LOCKED, RUNNING, COMPLETE, CANCELLED = (
    "Queued",
    "Locked",
    "Running",
    "Complete",
    "Cancelled",
)
FINAL = (COMPLETE, CANCELLED)
NO_GPU = {
    "device_count": 0,
    "driver_version": "",
    "hardware_target": [],
    "stack": "",
    "vram": 0,
}
SCHEDULING = {"max_run_time": 0, "partitions": [], "preemptible": False, "supervisor": False}
