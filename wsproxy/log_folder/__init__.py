# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Live logs where Workbench looks for them: the controller's log folder, read once for all."""
