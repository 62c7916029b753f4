# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Tables and columns that are kept true beside the rows, by raw SQL: no log row tells of them."""
