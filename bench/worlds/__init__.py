# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a round runs on: clusters with people and objects in them, and sides that take turns."""
