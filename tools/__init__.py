# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Programs that make pages of docs and files of the chart from the code."""
