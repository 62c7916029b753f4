# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats publishers …`: run all parts in one process, or one part."""

from __future__ import annotations

import sys

import click

from arvados_nats.service import process
from publishers.container_logs.push_cli import push_log_command
from publishers.main import PARTS, main
from publishers.settings import Settings
from publishers.system_logs.cli import system_logs_command


@click.group()
def publishers() -> None:
    """Carry what happens in Arvados into NATS."""


@publishers.command()
@click.option(
    "--only",
    "only",
    multiple=True,
    type=click.Choice(sorted(PARTS)),
    help="Run this part; may be given several times. Default: all parts.",
)
def run(only: tuple[str, ...]) -> None:
    """Run all parts in one process."""
    _run(only or tuple(PARTS))


def _run(parts: tuple[str, ...]) -> None:
    sys.exit(process.run(lambda settings: main(settings, parts), Settings))


def _add_part(name: str) -> None:
    @publishers.command(name, help=PARTS[name].__doc__)
    def part() -> None:
        _run((name,))


for _name in PARTS:
    _add_part(_name)
publishers.add_command(push_log_command)
publishers.add_command(system_logs_command)
