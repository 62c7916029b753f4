# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""NATS to sockets: protocols v0, v1 and server-sent events."""
