# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What it costs to decide who may read, to let them in, and to take it away again."""
