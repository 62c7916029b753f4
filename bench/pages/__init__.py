# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Real browsers: the page of ours, and Workbench with our script."""
