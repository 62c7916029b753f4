# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The edge to NATS: connections, JetStream, the server's configuration."""
