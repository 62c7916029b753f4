# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whatever anybody sends, nobody else notices, and it costs no more than the bounds say."""
