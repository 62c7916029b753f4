# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal uses: logs, watch, whoami; and a Python client of protocol v1."""
