# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Write docs/clients/*.md from the programs in tests/clients: `python tools/make_clients.py`.

The code in docs/clients.md is filled in as well: parts of the Python program that a comment before
the block names. A test holds the pages equal to what this makes, and others run the programs, so
what the pages show works.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

PAGES = Path(__file__).parents[1] / "docs" / "clients"
PROGRAMS = Path(__file__).parents[1] / "tests" / "clients"

_LANGUAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "go": (
        "Go",
        "go run . events zzzzz-j7d0g-0123456789abcde",
        ("go.mod", "main.go", "connection.go", "events.go", "logfile.go", "queue.go"),
    ),
    "js": (
        "JavaScript",
        "npm install && node arvados_live.mjs events zzzzz-j7d0g-0123456789abcde",
        ("package.json", "arvados_live.mjs"),
    ),
    "python": (
        "Python",
        "pip install nats-py && python arvados_live.py events zzzzz-j7d0g-0123456789abcde",
        ("arvados_live.py",),
    ),
    "ruby": (
        "Ruby",
        "gem install nats-pure && ruby arvados_live.rb events zzzzz-j7d0g-0123456789abcde",
        ("arvados_live.rb",),
    ),
}
_FENCES = {".go": "go", ".mod": "", ".mjs": "js", ".json": "json", ".py": "python", ".rb": "ruby"}

_HEAD = """# A native client in {name}

Written by `tools/make_clients.py` from `tests/clients/{language}`; do not edit.

What the program relies on is explained in [Native NATS clients](../clients.md).

```sh
export NATS_URL=nats://nats.example:4222 ARVADOS_API_TOKEN=v2/…
{start}
```
"""


_PARTS = re.compile(r"(<!-- arvados_live\.py: (.*?) -->\n```python\n).*?(```\n)", re.DOTALL)


def pages() -> dict[Path, str]:
    """The text of each page."""
    written = PAGES.with_suffix(".md")
    return {
        written: _PARTS.sub(_filled, written.read_text(encoding="utf-8")),
        **{PAGES / f"{language}.md": _page(language) for language in _LANGUAGES},
    }


def _filled(block: re.Match[str]) -> str:
    parts = [_method(*name.split(".")) for name in block[2].split(", ")]
    return f"{block[1]}{chr(10).join(parts)}{block[3]}"


def _method(kind: str, name: str) -> str:
    """The source of a method of the Python program."""
    source = (PROGRAMS / "python" / "arvados_live.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == kind:
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and part.name == name:
                    found = ast.get_source_segment(source, part, padded=True) or ""
                    return textwrap.dedent(found) + "\n"
    raise LookupError(f"arvados_live.py has no {kind}.{name}")


def _page(language: str) -> str:
    name, start, files = _LANGUAGES[language]
    parts = [_HEAD.format(name=name, language=language, start=start)]
    for file in files:
        path = PROGRAMS / language / file
        text = path.read_text(encoding="utf-8")
        parts.append(f"## {file}\n\n```{_FENCES[path.suffix]}\n{text}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
