# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Measurements, each a ratio or a distribution taken in one run."""
