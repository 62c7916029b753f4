# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The flows in short form on each release of Arvados that people run: `make test-ages`."""
