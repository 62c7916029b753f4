# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the NATS accounts are called; `nats/accounts_config.py` says who may do what."""

from __future__ import annotations

AUTH, SYS, ARVADOS, SENDERS = "AUTH", "SYS", "ARVADOS", "SENDERS"
USERS, REQUESTS = "USERS", "REQUESTS"
ASKING_USER = "api"
"""With this user name, and the token as password, a client is placed in REQUESTS."""
