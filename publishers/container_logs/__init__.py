# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The container log publisher: log files of containers into ARVADOS_LOGS."""
