# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Everybody hears what they may, and no longer than that, by every door."""
