# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command group `arvados-nats watch`.

Each command prints lines for a person, or with `--json` one JSON object a line, until Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from arvados_nats.contract import subjects
from arvados_nats.contract.system_log_records import PRIORITIES

if TYPE_CHECKING:
    from arvados_nats.commands.watch.events import Watch

F = TypeVar("F", bound=Callable[..., Any])

_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_proxy = click.option(
    "--proxy", help="WebSocket proxy to use instead of the one that the cluster names."
)


def _event_options(command: F) -> F:
    """What chooses events."""
    for option in (
        click.option(
            "--kind",
            "kinds",
            multiple=True,
            help="container, collection, …; may be given more than once",
        ),
        click.option(
            "--type",
            "event_types",
            multiple=True,
            help="create, update, …; may be given more than once",
        ),
        click.option("--cursor", help="Go on after the event with this cursor."),
        click.option("--oldest", is_flag=True, help="Begin with the oldest event that is kept."),
        _proxy,
        _as_json,
    ):
        command = option(command)
    return command


@click.group()
def watch() -> None:
    """Follow objects, events and permissions, as they change."""


def _uuid(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not subjects.is_uuid(value):
        raise click.BadParameter("not the uuid of an Arvados object")
    return value


def _owner(ctx: click.Context, param: click.Parameter, value: str) -> str:
    kind = subjects.kind_of(value)
    if kind is None or kind.name not in ("group", "user"):
        raise click.BadParameter("not the uuid of a project or a user: nothing is in it")
    return value


def _uuids(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_uuid(ctx, param, one) for one in value)


def _watch(as_json: bool, proxy: str | None) -> Watch:
    from arvados_nats.commands import arvados_settings, command
    from arvados_nats.commands.watch.events import Watch

    return Watch(arvados_settings.read(), command.write, command.Notes(), as_json, proxy)


@watch.command("object")
@click.argument("uuid", callback=_uuid)
@_proxy
@_as_json
def watch_object(uuid: str, as_json: bool, proxy: str | None) -> None:
    """Follow the state of one object.

    A container request comes with its present container. Exits 1 when the object is gone, or may
    not be read.
    """
    from arvados_nats.commands import command
    from arvados_nats.commands.watch import events as flow

    command.run(flow.watch_object(_watch(as_json, proxy), uuid))


@watch.command("project")
@click.argument("uuid", callback=_owner)
@click.option("--below", is_flag=True, help="Also in all projects below it.")
@_event_options
def watch_project(uuid: str, **options: Any) -> None:
    """Follow what happens to the objects in a project, or in a user's home."""
    _run_events(owners=[uuid], readable=uuid, **options)


@watch.command("events")
@click.option(
    "--owner",
    "owners",
    multiple=True,
    callback=_uuids,
    help="Objects in this project; may be given more than once.",
)
@click.option(
    "--object",
    "objects",
    multiple=True,
    callback=_uuids,
    help="This object; may be given more than once.",
)
@_event_options
def watch_events(owners: tuple[str, ...], objects: tuple[str, ...], **options: Any) -> None:
    """Follow the changes of all objects that may be read."""
    _run_events(owners=owners, objects=objects, **options)


def _run_events(
    *,
    as_json: bool,
    proxy: str | None,
    oldest: bool,
    cursor: str | None,
    below: bool = False,
    readable: str | None = None,
    **lists: Any,
) -> None:
    from arvados_nats.commands import command
    from arvados_nats.commands.watch import events as flow

    filters: dict[str, Any] = {name: list(words) for name, words in lists.items() if words}
    if below:
        filters["below"] = True
    if oldest and cursor is None:
        filters["begin"] = "oldest"
    command.run(
        flow.watch_events(_watch(as_json, proxy), cursor=cursor, readable=readable, **filters)
    )


@watch.command("permissions")
@click.option(
    "--nats", "nats_url", envvar="ARVADOS_NATS_NATS_URL", required=True, help="NATS servers."
)
@_as_json
def watch_permissions(nats_url: str, as_json: bool) -> None:
    """Follow what the token may subscribe to on NATS."""
    from arvados_nats.commands import command
    from arvados_nats.commands.watch import permissions as flow

    command.run(flow.watch_permissions(_watch(as_json, None), nats_url))


@watch.command("queue")
@click.option(
    "--nats", "nats_url", envvar="ARVADOS_NATS_NATS_URL", required=True, help="NATS servers."
)
@_as_json
def watch_queue(nats_url: str, as_json: bool) -> None:
    """Follow the containers that wait or run; for administrators."""
    from arvados_nats.commands import command
    from arvados_nats.commands.watch import queue as flow

    command.run(flow.watch_queue(_watch(as_json, None), nats_url))


@watch.command("system-logs")
@click.option("--host", help="Only this machine.")
@click.option(
    "--unit", "units", multiple=True, help="Only this systemd unit; may be given more than once."
)
@click.option(
    "--priority",
    type=click.Choice([*PRIORITIES, *map(str, range(len(PRIORITIES)))]),
    default=PRIORITIES[-1],
    metavar="LEVEL",
    help=f"This bad and worse: {', '.join(PRIORITIES)}, or 0 to 7.",
)
@click.option("--oldest", is_flag=True, help="Begin with the oldest record that is kept.")
@click.option(
    "--nats", "nats_url", envvar="ARVADOS_NATS_NATS_URL", required=True, help="NATS servers."
)
@_as_json
def watch_system_logs(
    *, units: tuple[str, ...], priority: str, nats_url: str, as_json: bool, **options: Any
) -> None:
    """Follow the system logs of the cluster's machines; for administrators."""
    from arvados_nats.commands import command
    from arvados_nats.commands.watch import system_logs as flow

    level = int(priority) if priority.isdigit() else PRIORITIES.index(priority)
    wanted = flow.RecordSelection(options["host"], units, level)
    command.run(
        flow.watch_system_logs(_watch(as_json, None), nats_url, wanted, oldest=options["oldest"])
    )
