# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Real servers on loopback, as processes of ours or in containers."""
