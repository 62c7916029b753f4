# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`python -m bench <name> [--json] [options of that benchmark]`: a module of `FOLDERS`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType

from bench import access, capacity, command, delivery, pages

FOLDERS = (delivery, access, capacity, pages)


def benchmarks() -> dict[str, ModuleType]:
    """The benchmarks there are, by name."""
    modules = {
        found.name: importlib.import_module(f"{folder.__name__}.{found.name}")
        for folder in FOLDERS
        for found in pkgutil.iter_modules(folder.__path__)
    }
    return {name: modules[name] for name in sorted(modules) if hasattr(modules[name], "measure")}


def main(arguments: list[str]) -> int:
    """Run one benchmark; the exit code."""
    known = benchmarks()
    if not arguments or arguments[0] not in known:
        print(f"usage: python -m bench {{{','.join(known)}}} [--json] […]", file=sys.stderr)
        return 2
    command.run(arguments[0], known[arguments[0]], arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
