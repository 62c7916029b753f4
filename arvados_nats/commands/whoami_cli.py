# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command `arvados-nats whoami`."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--nats",
    "nats_url",
    envvar="ARVADOS_NATS_NATS_URL",
    help="Log in to these NATS servers too, and show what that gives.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def whoami(nats_url: str | None, as_json: bool) -> None:
    """Say who the token is, what it may do, and why it is refused.

    Exits 1 if Arvados or NATS refuses the token.
    """
    import msgspec

    from arvados_nats.commands import arvados_settings, command
    from arvados_nats.commands import whoami as flow

    settings = arvados_settings.read()

    async def main() -> int:
        report = await flow.look(settings, nats_url)
        shown = msgspec.json.encode(report) + b"\n" if as_json else flow.text(report).encode()
        command.write(shown)
        return 0 if report.good else 1

    command.run(main())
