# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The live publisher: what is stored, shown below arvados.live for native clients."""
