# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The chart on a real Kubernetes API server: opt-in, `make test-k8s`."""
