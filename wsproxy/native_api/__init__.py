# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What native NATS clients may ask for: history, logs, objects."""
