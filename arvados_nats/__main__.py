# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`python -m arvados_nats` is the command `arvados-nats`."""

from arvados_nats.cli import main

main(prog_name="arvados-nats")
