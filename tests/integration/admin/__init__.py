# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What administrators type, on machines and beside sites that are well or not."""
