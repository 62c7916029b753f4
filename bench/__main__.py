# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`python -m bench <name> [--json] [options of that benchmark]`.

Each module of this folder with a function `main(arguments) -> figures` is a benchmark: it reads its
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

import bench


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(bench.__path__)
        if not module.name.startswith("_")
        and hasattr(importlib.import_module(f"bench.{module.name}"), "main")
    )


def main(arguments: list[str]) -> int:
    """Run one benchmark; the exit code."""
    as_json = "--json" in arguments
    rest = [argument for argument in arguments if argument != "--json"]
    if not rest or rest[0] not in names():
        print(f"usage: python -m bench {{{','.join(names())}}} [--json] […]", file=sys.stderr)
        return 2
    module = importlib.import_module(f"bench.{rest[0]}")
    with contextlib.redirect_stdout(io.StringIO()) if as_json else contextlib.nullcontext():
        figures = module.main(rest[1:])
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
