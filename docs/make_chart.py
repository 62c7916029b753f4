# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Write helm/arvados-nats/README.md from its template and values: `python docs/make_chart.py`.

Each `# -- text` line above a key of values.yaml is a row. What all three components share is one
table. A test holds the page equal to what this makes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "helm" / "arvados-nats"
COMPONENTS = ("authcallout", "publishers", "wsproxy")
_KEY = re.compile(r"( *)(\w+):")
_TEXT = re.compile(r" *# -- (.*)")

Row = tuple[str, str]
"""A dotted path and what it is for."""


def rows() -> Iterator[Row]:
    """Every key with a text, in the order of the file."""
    path: list[tuple[int, str]] = []
    text = ""
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        if found := _TEXT.match(line):
            text = found[1]
        elif found := _KEY.match(line):
            depth = len(found[1])
            path = [part for part in path if part[0] < depth] + [(depth, found[2])]
            if text:
                yield ".".join(name for _, name in path), text
            text = ""


def page() -> str:
    """The text of README.md."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    found = list(rows())
    shared = {key.partition(".")[2] for key, _ in found if key.startswith("authcallout.")}
    general = [row for row in found if row[0].partition(".")[0] not in COMPONENTS]
    own = [
        (key, text)
        for key, text in found
        if key.startswith("wsproxy.") and key.partition(".")[2] not in shared
    ]
    each = [(key, text) for key, text in found if key.startswith("authcallout.")]
    template = (CHART / "README.md.tmpl").read_text(encoding="utf-8")
    return template.format(
        general=_table(general, values),
        wsproxy=_table(own, values),
        component=_table(each, values).replace("`authcallout.", "`<component>."),
    )


def _table(found: list[Row], values: dict[str, Any]) -> str:
    lines = ["| value | default | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {_default(key, values)} | {text} |" for key, text in found]
    return "\n".join(lines)


def _default(key: str, values: Any) -> str:
    for name in key.split("."):
        values = values[name]
    return "" if values in ("", None) else f"`{json.dumps(values)}`"


if __name__ == "__main__":
    (CHART / "README.md").write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{CHART / 'README.md'} written\n")
