# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How PostgreSQL is reached: addresses, errors, which server is the primary."""
