# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The pretend cluster and its servers, held to recordings of a real one."""
