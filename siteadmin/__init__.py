# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a site's administrator sets up and checks with: keys, nats.conf, looks at what runs."""
