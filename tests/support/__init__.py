# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What tests stand on: worlds, clients, fronts and recorders."""
