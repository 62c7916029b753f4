# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The edge to Arvados: its API, its configuration, who holds a token."""
