# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`python -m bench <name> [--json] [options of that benchmark]`.

Each module of `FOLDERS` with a function `main(arguments) -> figures` is a benchmark: it reads its
own options from `arguments`, prints lines for people with `print`, and returns a flat dict of
figures. The last line of output is that dict as one JSON object; `--json` prints nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pkgutil
import sys
from types import ModuleType

from bench import access, capacity, delivery, pages

FOLDERS = (delivery, access, capacity, pages)


def benchmarks() -> dict[str, ModuleType]:
    """The benchmarks there are, by name."""
    modules = {
        found.name: importlib.import_module(f"{folder.__name__}.{found.name}")
        for folder in FOLDERS
        for found in pkgutil.iter_modules(folder.__path__)
    }
    return {name: modules[name] for name in sorted(modules) if hasattr(modules[name], "main")}


def main(arguments: list[str]) -> int:
    """Run one benchmark; the exit code."""
    as_json = "--json" in arguments
    rest = [argument for argument in arguments if argument != "--json"]
    known = benchmarks()
    if not rest or rest[0] not in known:
        print(f"usage: python -m bench {{{','.join(known)}}} [--json] […]", file=sys.stderr)
        return 2
    with contextlib.redirect_stdout(io.StringIO()) if as_json else contextlib.nullcontext():
        figures = known[rest[0]].main(rest[1:])
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
