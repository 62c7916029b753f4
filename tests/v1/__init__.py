# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Protocol v1 and its server-sent events on a whole site."""
