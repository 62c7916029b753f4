# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The rules by which the pretend cluster writes its database, as an Arvados API server does."""
