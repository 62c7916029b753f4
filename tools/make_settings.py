# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Write docs/settings.md from the settings classes: `python tools/make_settings.py`.

A test holds the page equal to what this makes, so no setting can go undocumented.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from pathlib import Path

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from arvados_nats.service.settings import Block
from authcallout.settings import Settings as CalloutSettings
from publishers.container_logs.push_cli import PushSettings
from publishers.settings import Settings as PublisherSettings
from publishers.system_logs.cli import SystemLogSettings
from wsproxy.settings import Settings as ProxySettings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
SERVICES: dict[str, type[Block]] = {
    "publishers": PublisherSettings,
    "authcallout": CalloutSettings,
    "wsproxy": ProxySettings,
}

_HEAD = """# Settings

Written by `tools/make_settings.py` from the settings classes; do not edit.

Every service reads its settings from the environment, or from files of the same names in
`ARVADOS_NATS_SECRETS_DIR`: give secrets that way. Durations are in seconds and sizes in bytes,
unless a name says otherwise. nkey seeds are files in `ARVADOS_NATS_KEYS_DIR`.
"""


def page() -> str:
    """The text of docs/settings.md."""
    used = {name: _fields(settings) for name, settings in SERVICES.items()}
    common = set.intersection(*(set(fields) for fields in used.values()))
    parts = [_HEAD, "## All services\n", _table(used["publishers"], common)]
    for name, fields in used.items():
        parts += [f"## {name}\n", _table(fields, set(fields) - common)]
    push = _fields(PushSettings)
    parts += ["## publishers push-log, on a compute node\n", _table(push, set(push))]
    system = _fields(SystemLogSettings)
    parts += [
        "## publishers system-logs, on every machine\n",
        _table(system, set(system) - common),
    ]
    return "\n".join(parts)


def _fields(settings: type[Block]) -> dict[str, tuple[FieldInfo, str]]:
    texts = {}
    for cls in reversed(settings.__mro__):
        if issubclass(cls, Block):
            texts.update(_docstrings(cls))
    return {
        _variable(name, field): (field, texts.get(name, ""))
        for name, field in settings.model_fields.items()
    }


def _variable(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"ARVADOS_NATS_{name.upper()}"


def _docstrings(cls: type[Block]) -> dict[str, str]:
    """The text under each field of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(text.value, ast.Constant)
            found[field.target.id] = " ".join(inspect.cleandoc(str(text.value.value)).split())
    return found


def _table(fields: dict[str, tuple[FieldInfo, str]], names: set[str]) -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, (field, text) in fields.items():
        if name in names:
            rows.append(f"| `{name}` | {_default(field)} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value == "" or isinstance(value, SecretStr):
        return ""
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if hasattr(value, "total_seconds"):
        value = f"{value.total_seconds():g}"
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE} written\n")
