# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats init`: what a machine or a Kubernetes cluster needs, written from a few answers."""
