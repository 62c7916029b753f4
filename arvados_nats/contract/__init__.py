# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What stands on NATS: subjects, streams, events, log chunks, queue entries. Pure."""
