# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The Arvados API server of the pretend cluster: reads, writes and container logs over HTTP."""
