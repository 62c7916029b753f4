# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The options of a benchmark: their help, and values for a short run that only shows that it works.

`--json` is `__main__`'s; it stands here so that every `--help` tells of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The description as it stands, and the default of each option."""


def parser(name: str, description: str | None, **short: Any) -> argparse.ArgumentParser:
    """A parser for `python -m bench <name>`; `--short` stands for the values in `short`."""
    made = argparse.ArgumentParser(
        prog=f"python -m bench {name}", description=description, formatter_class=_Formatter
    )
    told = " ".join(f"--{option.replace('_', '-')} {value}" for option, value in short.items())
    made.add_argument(
        "--short",
        action=_Short,
        nargs=0,
        default=argparse.SUPPRESS,
        values=short,
        help=f"see in a minute or two that it works: {told}",
    )
    made.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print the JSON object and nothing else",
    )
    return made


class _Short(argparse.Action):
    """Give short values to the options that were not given before."""

    def __init__(self, *, values: dict[str, Any], **others: Any) -> None:
        super().__init__(**others)
        self._values = values

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        for name, value in self._values.items():
            if getattr(namespace, name) == parser.get_default(name):
                setattr(namespace, name, value)
