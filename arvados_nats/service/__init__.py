# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A process of ours: settings, life, health and metrics, traces, keys."""
