# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Servers of others that are measured beside ours, in the same run and on the same cores."""
