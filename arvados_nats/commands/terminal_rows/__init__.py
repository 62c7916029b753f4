# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What bytes of a log look like on a terminal, row by row; nothing of them acts."""
