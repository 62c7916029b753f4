# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What every file of ours is like. What it may import stands in pyproject.toml: `make check`."""

from __future__ import annotations

import ast
import collections
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("arvados_nats", "authcallout", "publishers", "wsproxy", "sandbox")
HEADER = "# Copyright (C) The Arvados-NATS Authors\n#\n# SPDX-License-Identifier: Apache-2.0\n"
_PROSE = re.compile(r'"""[\s\S]*?"""|#[^\n]*')
_OF_OTHERS = {"a_b", "next_msg", "stdout_txt", "tcpi_last_ack_recv", "wait_for"}
"""Names of libraries and of the kernel, and examples."""
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_nats_library_is_known_at_its_edge_only() -> None:
    """Its exceptions and quirks end in these modules."""
    knowing = {
        _name(path)
        for path in MODULES
        if re.search(r"^\s*(import|from) nats\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    edge = ("client", "errors", "inbox", "jetstream", "parser")
    assert knowing == {f"arvados_nats/nats/{module}.py" for module in edge}


def test_no_test_imports_another_folder_of_tests() -> None:
    """What several folders need lies in tests/support."""
    strangers = [
        f"{_name(path)}: {folder}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for folder in re.findall(r"^\s*from tests\.(\w+)", path.read_text("utf-8"), re.MULTILINE)
        if folder not in ("support", path.relative_to(ROOT).parts[1])
    ]
    assert strangers == []


def test_no_test_changes_a_library_for_everybody() -> None:
    """`asyncio.sleep` that does not wait stops the servers that other tests share, and eats memory:
    replace the name of the module where it is used, not what the module holds."""
    changing = [
        f"{_name(path)}: {found}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for found in re.findall(
            r'setattr\(\s*"[\w.]+\.(?:asyncio|time|random|os|socket|signal)\.\w+"'
            r"|setattr\(\s*(?:asyncio|time|random|os|socket|signal),",
            path.read_text("utf-8"),
        )
    ]
    assert not changing


def test_a_folder_holds_at_most_twenty_modules() -> None:
    """More than that is no longer read as a map: of the product, the tests and all others."""
    folders = collections.Counter(
        path.relative_to(ROOT).parent
        for package in (*PACKAGES, "bench", "tests", "tools")
        for path in (ROOT / package).rglob("*.py")
        if path.stem != "__init__"
    )
    assert {str(folder): count for folder, count in folders.items() if count > 20} == {}


def test_a_file_begins_with_who_may_use_it_and_what_it_is() -> None:
    """Two SPDX lines, then a docstring; `__init__.py` holds nothing else, but for the client's."""
    assert [_name(path) for path in MODULES if not _begins_well(path)] == []


def test_what_prose_names_in_code_is_there() -> None:
    """A docstring that names a module or a function by a name that it had before leads nowhere."""
    texts = {path: path.read_text(encoding="utf-8") for path in MODULES}
    words = {part for path in MODULES for part in path.relative_to(ROOT).with_suffix("").parts}
    words.update(*(re.findall(r"\w+", _PROSE.sub("", text)) for text in texts.values()))
    strangers = [
        f"{_name(path)}: {name}"
        for path, text in texts.items()
        for prose in _PROSE.findall(text)
        for name in re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", prose)
        if name not in words | _OF_OTHERS
    ]
    assert strangers == []


def _begins_well(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    alone = path.stem != "__init__" or path.parent.name == "client" or len(tree.body) == 1
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
