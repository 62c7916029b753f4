# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats`: one group, whose commands are loaded when they are called.

The rooms' own commands live in the rooms; this table is the one place where the kernel names them,
and it names them as text, so that importing the kernel imports no service.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from arvados_nats.errors import ArvadosNatsError, ConfigError

# httpx would load a command line of its own, and with it rich and pygments where they are.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

COMMANDS = {
    "authcallout": "authcallout.cli:authcallout",
    "check": "arvados_nats.admin.check_cli:check",
    "config": "arvados_nats.admin.nats_config_cli:config",
    "demo": "sandbox.demo:demo",
    "doctor": "arvados_nats.admin.doctor.cli:doctor",
    "init": "arvados_nats.admin.init.cli:init",
    "keys": "arvados_nats.admin.keys_cli:keys",
    "logs": "arvados_nats.commands.logs_cli:logs",
    "publishers": "publishers.cli:publishers",
    "status": "arvados_nats.admin.status_cli:status",
    "watch": "arvados_nats.commands.watch.cli:watch",
    "whoami": "arvados_nats.commands.whoami_cli:whoami",
    "wsproxy": "wsproxy.cli:wsproxy",
}
ELSEWHERE = {
    "demo": "it is in the source tree: make demo",
    **dict.fromkeys(
        (
            "authcallout",
            "check",
            "config",
            "doctor",
            "init",
            "keys",
            "publishers",
            "status",
            "wsproxy",
        ),
        "pip install 'arvados-nats[server]'",
    ),
}
"""Commands that need more than the bare distribution, and where they are to be had."""


GROUPS = {
    "Watching processes and changes": ("logs", "watch", "whoami"),
    "Trying it": ("demo",),
    "For administrators": ("init", "doctor", "check", "config", "keys", "status"),
    "Services": ("authcallout", "publishers", "wsproxy"),
}


class _Lazy(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those for everybody first."""
        for title, names in GROUPS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            rows = [(name, found.get_short_help_str(60)) for name, found in commands if found]
            with formatter.section(title):
                formatter.write_dl(rows)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        place = COMMANDS.get(name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError:
            if name not in ELSEWHERE:
                raise
            return _not_installed(name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; our own errors, and what is wrong with a file, become one line and an
        exit code, not a traceback."""
        try:
            return super().invoke(ctx)
        except ArvadosNatsError as error:
            from arvados_nats.commands.sanitize import harmless_text

            click.echo(f"arvados-nats: {harmless_text(str(error))}", err=True)
            ctx.exit(2 if isinstance(error, ConfigError) else 1)
        except OSError as error:
            if error.filename is None:
                raise
            hint = "; run this as root" if isinstance(error, PermissionError) else ""
            click.echo(f"arvados-nats: {error.filename}: {error.strerror}{hint}", err=True)
            ctx.exit(2)


def _not_installed(name: str) -> click.Command:
    """Stands where a command would be that needs more than is installed."""
    reason = f"Not installed here: {ELSEWHERE[name]}"

    def refuse() -> None:
        raise ConfigError(f"{name}: {reason}")

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, callback=refuse, help=reason, context_settings=anything)


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="arvados-nats")
@click.option(
    "--arvados-config",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Arvados' own config.yml, for all that is set nowhere else.",
)
@click.option(
    "--cluster-id", metavar="NAME", help="Which cluster of that file, where it has several."
)
def main(arvados_config: str | None, cluster_id: str | None) -> None:
    """The message facility of an Arvados cluster, on NATS JetStream."""
    if arvados_config:
        os.environ["ARVADOS_NATS_ARVADOS_CONFIG"] = arvados_config
    if cluster_id:
        os.environ["ARVADOS_NATS_ARVADOS_CLUSTER"] = cluster_id
