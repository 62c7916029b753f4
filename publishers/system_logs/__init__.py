# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The system log publisher: a machine's journal into ARVADOS_SYSLOG."""
