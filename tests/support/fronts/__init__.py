# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Servers in front of others: proxies that fail, collectors, journals."""
