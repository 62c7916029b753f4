# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The event publisher: rows of the table `logs` into ARVADOS_EVENTS."""
