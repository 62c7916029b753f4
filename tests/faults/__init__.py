# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What happens when machines, networks and disks fail, on real servers; `make test-faults`."""
