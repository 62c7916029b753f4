# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats authcallout`."""

from __future__ import annotations

import sys

import click

from arvados_nats.service import process
from authcallout.main import main
from authcallout.settings import Settings


@click.command()
def authcallout() -> None:
    """Answer NATS auth callouts for Arvados tokens, and take back what is withdrawn."""
    sys.exit(process.run(main, Settings))
