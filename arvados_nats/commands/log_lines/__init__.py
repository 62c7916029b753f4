# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Lines of log files for a terminal or a pipe: in order, chosen, named, coloured."""
