# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a machine holds: sockets, hours, hostility, several replicas, and the floor below it all."""
