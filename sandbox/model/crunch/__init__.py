# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Crunch: container requests, the containers that they become, and what those leave."""
