# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Fill in the code of docs/clients.md from the Python program: `python tools/make_clients.py`.

A comment before a block names the parts of tests/clients/python/arvados_live.py that it shows. A
test holds the page to what this makes, and others run the program, so what the page shows works.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs" / "clients.md"
_PROGRAM = _ROOT / "tests" / "clients" / "python" / "arvados_live.py"
_PARTS = re.compile(r"(<!-- arvados_live\.py: (.*?) -->\n```python\n).*?(```\n)", re.DOTALL)


def page() -> str:
    """The text of the page, with the blocks as the program is now."""
    return _PARTS.sub(_filled, PAGE.read_text(encoding="utf-8"))


def _filled(block: re.Match[str]) -> str:
    parts = [_method(*name.split(".")) for name in block[2].split(", ")]
    return f"{block[1]}{chr(10).join(parts)}{block[3]}"


def _method(kind: str, name: str) -> str:
    """The source of a method of the program."""
    source = _PROGRAM.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == kind:
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and part.name == name:
                    found = ast.get_source_segment(source, part, padded=True) or ""
                    return textwrap.dedent(found) + "\n"
    raise LookupError(f"arvados_live.py has no {kind}.{name}")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
