# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The queue publisher: the dispatch queue as the bucket ARVADOS_QUEUE."""
