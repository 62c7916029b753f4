# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings of the callout service."""

from __future__ import annotations

from pydantic import NonNegativeInt

from arvados_nats.service.settings import ArvadosSettings, NatsSettings, OpsSettings
from authcallout.admissions import MAX_PATTERNS
from authcallout.revocation import GAINS


class Settings(NatsSettings, ArvadosSettings, OpsSettings):
    """Read from the environment; the seeds `callout`, `callout-service`, `sys`, `issuer` and `xkey`
    are files in `keys_dir`, and so is `system-logs`, without which no machine gets in by a key."""

    callout_at_once: int = 1000
    """Logins that are decided at the same time, at most: fewer while they hold each other up."""

    callout_budget: float = 1.2
    """Seconds in which a login must be decided. NATS clients give up after 2 s."""

    callout_patterns: int = MAX_PATTERNS
    """Live subjects that one login may carry. Who needs more gets history and the proxy only."""

    callout_gain_seconds: float = GAINS
    """Seconds for which new permissions are gathered before a native connection is cut so that it
    comes back with them. What is withdrawn cuts at once, whatever this says."""

    max_connections_per_user: NonNegativeInt = 5_000
    """Native connections of one user; 0 for no limit. A container's own token has its own 100."""

    arvados_calls: int = 2
    """Questions to Arvados that are under way at once; see ARVADOS_NATS_LOG_CALLS."""
