# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The page that people open: its files, and what it cannot learn over a socket.

The files are built from `web/`. Everything is asked of Arvados with the reader's own token, so the
page shows nothing that they could not list themselves.
"""
