# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The tests; helpers of one folder are imported as `tests.<folder>.<module>`."""
