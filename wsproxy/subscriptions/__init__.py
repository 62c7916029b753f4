# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a connection subscribes to, whatever its protocol: logs, one object, events."""
