# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Protocol v0 as arvados-ws' own suite and its clients expect it: black box, by URL."""
