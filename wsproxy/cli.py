# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats wsproxy`."""

from __future__ import annotations

import sys

import click

from arvados_nats.service import process
from wsproxy.main import main
from wsproxy.settings import Settings


@click.command()
def wsproxy() -> None:
    """Carry events and logs to browsers, the Python SDK, arv-mount and terminals.

    Settings come from the environment, ARVADOS_NATS_...; docs/install.md lists them.
    """
    sys.exit(process.run(main, Settings))
