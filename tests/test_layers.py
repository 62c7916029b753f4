# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Imports go one way: rooms to the kernel, and inside the kernel from commands down to errors.

The layers stand in pyproject.toml, where `make check` reads them too; here they are held by the
suite itself, with nothing but the syntax tree.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS, KERNEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
PACKAGES = tuple(re.split(r"\W+", " ".join(ROOMS["layers"])))
HEADER = "# Copyright (C) The Arvados-NATS Authors\n#\n# SPDX-License-Identifier: Apache-2.0\n"
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
RINGS = {
    name: ring for ring, names in enumerate(KERNEL["layers"]) for name in re.split(r"\W+", names)
}


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, anywhere in it, as `package.module…`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                found = [name.name for name in names]
            case ast.ImportFrom(module=str(module), level=0, names=names):
                found = [f"{module}.{name.name}" for name in names]
            case ast.ImportFrom():
                found = ["relative import"]
            case _:
                continue
        yield from (name for name in found if name.partition(".")[0] in {*PACKAGES, "relative"})


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_module_imports_its_own_room_and_the_kernel() -> None:
    """Services never import each other, nor the sandbox; the kernel imports none of them.

    The sandbox runs NATS servers with the configuration that administrators get.
    """
    strangers = {
        _name(path): rooms
        for path in MODULES
        if (rooms := {name.partition(".")[0] for name in imports(path)} - _may_import(path))
    }
    assert strangers == {}


def _may_import(path: Path) -> set[str]:
    room = path.relative_to(ROOT).parts[0]
    return {room, "arvados_nats", *(["siteadmin"] if room == "sandbox" else [])}


def test_a_kernel_module_imports_inwards() -> None:
    """Rules know no network, edges know no settings, and nothing knows the commands."""
    outward = {
        _name(path): names
        for path in MODULES
        if path.parent.name == "arvados_nats" and (names := _outward(path))
    }
    assert outward == {}


def _outward(path: Path) -> set[str]:
    modules = {name.split(".")[1] for name in imports(path) if name.count(".")}
    return {module for module in modules if RINGS.get(module, 99) < RINGS.get(path.stem, 99)}


def test_the_nats_library_is_known_at_its_edge_only() -> None:
    """Its exceptions and quirks end in these modules."""
    knowing = {
        _name(path)
        for path in MODULES
        if re.search(r"^\s*(import|from) nats\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    edge = ("nats_client", "nats_failures", "nats_inbox", "nats_streams", "nats_wire")
    assert knowing == {f"arvados_nats/{module}.py" for module in edge}


def test_every_kernel_module_has_a_place() -> None:
    """A new module is given a layer in pyproject.toml; a removed one leaves none behind."""
    modules = {path.stem for path in (ROOT / "arvados_nats").glob("*.py")} - {"__init__"}
    assert modules == set(RINGS)


def test_a_file_begins_with_who_may_use_it_and_what_it_is() -> None:
    """Two SPDX lines, then a docstring; `__init__.py` holds nothing else."""
    assert [_name(path) for path in MODULES if not _begins_well(path)] == []


def _begins_well(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    alone = path.stem != "__init__" or len(tree.body) == 1
    return text.startswith(HEADER) and bool(ast.get_docstring(tree)) and alone


def test_modules_and_functions_stay_readable() -> None:
    """No module over 400 lines, no function over 60."""
    assert [_name(path) for path in MODULES if path.read_text().count("\n") > 400] == []
    assert [
        f"{_name(path)}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _body_lines(node) > 60
    ] == []


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or 0) - first.lineno + 1
