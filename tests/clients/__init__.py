# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Small programs for native NATS clients, which the documentation shows, and what they promise."""
