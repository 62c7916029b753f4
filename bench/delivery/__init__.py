# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How soon what was written is with its readers, and how much of it a second."""
