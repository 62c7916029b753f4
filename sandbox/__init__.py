# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A pretend Arvados cluster on one machine, for the demo, the tests and the benchmarks."""
