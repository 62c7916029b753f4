# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats logs`."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict, Unpack

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from arvados_nats.commands.command import Notes
    from arvados_nats.commands.log_lines.output import Output
    from arvados_nats.commands.log_lines.printers import Printer

_MAIN = ("crunch-run.txt", "stderr.txt", "stdout.txt")
_OFFERED = 20
"""Processes that completion offers."""


class _Options(TypedDict):
    follow: bool
    tail: int | None
    files: tuple[str, ...]
    main_logs: bool
    attempt: int | None
    since: datetime | None
    until: datetime | None
    pattern: re.Pattern[str] | None
    listed: bool
    as_json: bool
    exit_code: bool
    timestamps: bool
    names: bool | None
    color: str
    proxy: str | None


def _file(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name if "." in name else f"{name}.txt" for name in value)


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    from arvados_nats.commands.log_lines.choice import moment

    try:
        now = datetime.now(UTC)  # noqa: TID251  (what a person types is by their clock)
        return None if value is None else moment(value, now)
    except (ValueError, OverflowError):
        raise click.BadParameter("neither a time such as 2026-01-31T12:30 nor 1h30m") from None


def _pattern(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> re.Pattern[str] | None:
    try:
        return None if value is None else re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"not a regular expression: {error}") from None


def _words(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    from arvados_nats.commands import processes
    from arvados_nats.errors import BadInput

    try:
        for word in value:
            processes.may_be_uuid(word)
    except BadInput as error:
        raise click.BadParameter(str(error)) from None
    return value


def _complete(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """One's newest processes, by uuid or by name; nothing where Arvados does not answer."""
    from arvados_nats.commands import offers
    from arvados_nats.commands.sanitize import harmless_text

    with contextlib.suppress(Exception):
        return [
            CompletionItem(
                one.uuid if one.uuid.startswith(begun) else one.name, help=harmless_text(one.name)
            )
            for one in offers.processes(_OFFERED)
            if (begun and one.name.startswith(begun) and one.name.isprintable())
            or one.uuid.startswith(begun)
        ]
    return []


@click.command(
    epilog="""\b
Examples:
  arvados-nats logs                         my newest process
  arvados-nats logs -f align-reads          the newest one of this name, to its end
  arvados-nats logs -f --main UUID UUID     two at once, without statistics
  arvados-nats logs --attempt 1 UUID        the attempt that failed, after a retry
  arvados-nats logs --since 10m --grep '(?i)error' UUID
  arvados-nats logs --file stdout UUID > out        one file, byte for byte
  arvados-nats logs --json UUID | jq -r .text
  arvados-nats logs --list                  my newest processes
  arvados-nats logs --list UUID             attempts and files of one
"""
)
@click.argument("process", nargs=-1, callback=_words, shell_complete=_complete)
@click.option("-f", "--follow", is_flag=True, help="Go on until the container has ended.")
@click.option(
    "-n", "--tail", type=click.IntRange(0, 10_000), help="Only the last N lines of each file."
)
@click.option(
    "--file",
    "files",
    multiple=True,
    callback=_file,
    help="Only this log file: stdout, stderr, crunch-run, …; may be given more than once. One file"
    " into a pipe or file is copied byte for byte.",
)
@click.option(
    "--main", "main_logs", is_flag=True, help="Only stderr, stdout and crunch-run: no statistics."
)
@click.option("--attempt", type=click.IntRange(1), help="Only this attempt of a request.")
@click.option(
    "--since",
    callback=_moment,
    metavar="TIME",
    help="Only lines from this time on: 2026-01-31T12:30, or 1h30m for so long ago.",
)
@click.option("--until", callback=_moment, metavar="TIME", help="Only lines up to this time.")
@click.option(
    "--grep",
    "pattern",
    callback=_pattern,
    metavar="PATTERN",
    help="Only lines in which this regular expression is found; (?i) for either case.",
)
@click.option(
    "--list", "listed", is_flag=True, help="List attempts and files, or one's newest processes."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--exit-code",
    is_flag=True,
    help="End with the exit code of the container: 1 if it was cancelled, 75 if it has not ended.",
)
@click.option("--timestamps/--no-timestamps", default=True, help="Time stamps before the lines.")
@click.option(
    "--names/--no-names",
    default=None,
    help="File names before the lines. Default: on a terminal, and of several processes.",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours.",
)
@click.option("--proxy", help="WebSocket proxy to use instead of the one that the cluster names.")
def logs(process: tuple[str, ...], **options: Unpack[_Options]) -> None:
    """Show the logs of processes: container requests with all their attempts, or containers.

    PROCESS is a uuid or the name of a container request, of which the newest counts; without one
    it is the newest that you began. Lines of all files are merged by time stamp; no file's own
    order is changed. ARVADOS_API_HOST and ARVADOS_API_TOKEN, or ~/.config/arvados/settings.conf,
    say where and who.
    """
    from arvados_nats.commands import arvados_settings, command, logs_list, logs_run
    from arvados_nats.commands.logs import LogSelection

    _refuse_contradictions(options)
    files = options["files"] + (_MAIN if options["main_logs"] else ())
    if options["attempt"] and any("-dz642-" in word for word in process):
        raise click.UsageError("--attempt is for container requests; this is one container")
    notes, settings = command.Notes(), arvados_settings.read()
    if options["listed"]:
        as_json, proxy = options["as_json"], options["proxy"]
        listing = logs_list.Listing(settings, command.write, notes, as_json, proxy)
        command.run(listing.show(process))
    run = logs_run.Run(
        settings,
        notes,
        _Printers(options, files, notes, several=len(process) > 1),
        LogSelection("", files, options["tail"], options["follow"]),
        options["attempt"],
        options["exit_code"],
        options["proxy"],
    )
    command.run(run.show(process))


def _refuse_contradictions(options: _Options) -> None:
    """What would show nothing, or be passed over in silence."""
    since, until = options["since"], options["until"]
    if since and until and until < since:
        raise click.UsageError("--until is before --since: no line is of that time")
    if options["listed"]:
        others = {
            "--follow": options["follow"],
            "--tail": options["tail"] is not None,
            "--file": options["files"],
            "--main": options["main_logs"],
            "--attempt": options["attempt"],
            "--since": since,
            "--until": until,
            "--grep": options["pattern"],
            "--exit-code": options["exit_code"],
        }
        if given := [name for name, value in others.items() if value]:
            raise click.UsageError(f"--list shows no lines: leave out {', '.join(given)}")


class _Printers:
    """A printer for each process; the lines of all go to one output."""

    def __init__(
        self, options: _Options, files: tuple[str, ...], notes: Notes, *, several: bool
    ) -> None:
        from arvados_nats.commands.log_lines.choice import Choice

        self._options = options
        self._notes = notes
        self._several = several
        self._alone = len(files) == 1 and not several
        self._choice = Choice(options["since"], options["until"], options["pattern"])
        self._output: Output | None = None

    def __call__(self, process: str) -> Printer:
        from arvados_nats.commands import command
        from arvados_nats.commands.log_lines.json_output import JsonOutput
        from arvados_nats.commands.log_lines.output import LogOutput, Look
        from arvados_nats.commands.log_lines.printers import Copy, Merged

        options, terminal = self._options, sys.stdout.isatty()
        names, color = options["names"], options["color"]
        plain = color == "auto" and terminal and not os.environ.get("NO_COLOR")
        look = Look(
            safe=terminal,
            names=(self._several or (terminal and not self._alone)) if names is None else names,
            colours=color == "always" or plain,
            timestamps=options["timestamps"],
        )
        if self._alone and look.plain and not options["as_json"] and self._choice.all:
            return Copy(command.write)
        if self._output is None:
            self._output = JsonOutput() if options["as_json"] else LogOutput(look)
        output, choice = self._output, self._choice
        return Merged(command.write, output, self._notes, process=process, choice=choice)
