# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One benchmark on the command line: its options, and how it is run and told.

A benchmark is a module with `add_options(parser)`, `SHORT`, values for a short run that only shows
that it works, and `measure(options)`, which prints lines for people as it goes and gives a flat
dict of figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import resource
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from bench import figures, processes


def run(name: str, benchmark: ModuleType, arguments: Sequence[str]) -> None:
    """Measure, and print the figures: a line each, and as one JSON object on the last line."""
    options = _parser(name, benchmark).parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.redirect_stdout(io.StringIO()) if options.json else contextlib.nullcontext():
        report = {"bench": name, "load": processes.load()}
        report |= asyncio.run(benchmark.measure(options))
        report["load_after"] = processes.load()
        for line in figures.lines(report):
            print(line)
    print(json.dumps(report))


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The description as it stands, and the default of each option."""


def _parser(name: str, benchmark: ModuleType) -> argparse.ArgumentParser:
    short: dict[str, Any] = benchmark.SHORT
    made = argparse.ArgumentParser(
        prog=f"python -m bench {name}", description=benchmark.__doc__, formatter_class=_Formatter
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
    made.add_argument("--json", action="store_true", help="print the JSON object and nothing else")
    benchmark.add_options(made)
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
