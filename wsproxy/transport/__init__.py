# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Sockets and streams of bytes: buffers, frames, limits, keep-alives."""
