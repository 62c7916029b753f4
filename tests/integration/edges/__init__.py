# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The edges to NATS and PostgreSQL, and a service as a process."""
