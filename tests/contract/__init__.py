# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a right client does: frames of each protocol, and who plays them to any client."""
