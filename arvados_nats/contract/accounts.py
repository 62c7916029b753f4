# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the NATS accounts are called; `arvados_nats/nats/server_config.py` says who may do what."""

from __future__ import annotations

AUTH, SYS, ARVADOS, SENDERS, USERS = "AUTH", "SYS", "ARVADOS", "SENDERS", "USERS"
