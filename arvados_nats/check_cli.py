# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command group `arvados-nats check`: say in plain words whether something is as it should be.

Every check prints its answer on stdout and exits 0 when all is well, 1 when not, 2 when it could
not look.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.group()
def check() -> None:
    """Check a recording, the configuration, or a running installation."""


@check.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def permissions(file: Path) -> None:
    """Replay recorded answers of a real Arvados against the permission rule.

    FILE has the format of tests/golden/permissions.json. Prints one JSON object; exits 1 if our
    rule is looser or stricter than Arvados in any cell.
    """
    from arvados_nats.check_permissions import check as replay
    from arvados_nats.errors import BadInput

    try:
        report = replay(file)
    except BadInput as error:
        click.echo(f"{file}: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps(report.as_dict()))
    sys.exit(0 if report.passed else 1)
