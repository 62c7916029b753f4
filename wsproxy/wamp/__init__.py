# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""WAMP, subprotocol `wamp.2.json`: subscriptions, calls and history for its clients."""
