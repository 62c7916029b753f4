# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""From a container's log, or a machine's, to the stream, and from there to readers."""
