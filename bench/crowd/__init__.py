# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Clients that cost next to nothing, so that a crowd of them measures the servers."""
