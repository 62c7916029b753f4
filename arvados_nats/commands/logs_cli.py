# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats logs`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from arvados_nats.contract import subjects

if TYPE_CHECKING:
    from arvados_nats.commands.command import Notes
    from arvados_nats.commands.log_printers import Printer


class _Options(TypedDict):
    follow: bool
    tail: int | None
    files: tuple[str, ...]
    exit_code: bool
    timestamps: bool
    names: bool | None
    color: str
    proxy: str | None


def _uuid(ctx: click.Context, param: click.Parameter, value: str) -> str:
    kind = subjects.kind_of(value)
    if kind is None or kind.name not in ("container", "container_request"):
        raise click.BadParameter("not the uuid of a container or container request")
    return value


def _file(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name if "." in name else f"{name}.txt" for name in value)


@click.command()
@click.argument("uuid", callback=_uuid)
@click.option("-f", "--follow", is_flag=True, help="Go on until the container has ended.")
@click.option(
    "-n", "--tail", type=click.IntRange(0, 10_000), help="Only the last N lines of each file."
)
@click.option(
    "--file",
    "files",
    multiple=True,
    callback=_file,
    help="Only this log file (may be given again): stdout, stderr, crunch-run, … One file into a"
    " pipe or file is copied byte for byte.",
)
@click.option(
    "--exit-code",
    is_flag=True,
    help="End with the exit code of the container: 1 if it was cancelled, 75 if it has not ended.",
)
@click.option("--timestamps/--no-timestamps", default=True, help="Time stamps before the lines.")
@click.option(
    "--names/--no-names", default=None, help="File names before the lines. Default: on a terminal."
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours.",
)
@click.option("--proxy", help="WebSocket proxy to use instead of the one that the cluster names.")
def logs(uuid: str, **options: Unpack[_Options]) -> None:
    """Show the logs of a container, or of a container request and all its attempts.

    Lines of all files are merged by time stamp; no file's own order is changed. ARVADOS_API_HOST
    and ARVADOS_API_TOKEN, or ~/.config/arvados/settings.conf, say where and who.
    """
    from arvados_nats.commands import arvados_settings, command
    from arvados_nats.commands import logs as flow

    notes = command.Notes()
    wanted = flow.LogSelection(uuid, options["files"], options["tail"], options["follow"])
    settings = arvados_settings.read()

    async def main() -> int:
        await flow.show(settings, wanted, _printer(options, notes), notes, options["proxy"])
        return await flow.exit_code(settings, uuid) if options["exit_code"] else 0

    command.run(main())


def _printer(options: _Options, notes: Notes) -> Printer:
    from arvados_nats.commands import command
    from arvados_nats.commands.log_output import Look
    from arvados_nats.commands.log_printers import Copy, Merged

    terminal, alone = sys.stdout.isatty(), len(options["files"]) == 1
    names, color = options["names"], options["color"]
    colours = color == "always" or (color == "auto" and terminal and not os.environ.get("NO_COLOR"))
    look = Look(
        safe=terminal,
        names=(terminal and not alone) if names is None else names,
        colours=colours,
        timestamps=options["timestamps"],
    )
    if alone and look.plain:
        return Copy(command.write)
    return Merged(command.write, look, notes)
