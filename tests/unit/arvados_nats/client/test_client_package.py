# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What programs of others import, and what it brings with it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from arvados_nats import client

PROJECT = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text("utf-8"))
NAMES = {"pyyaml": "yaml", "pyjwt": "jwt", "pynacl": "nacl", "nats-py": "nats"}


def _modules(requirements: list[str]) -> set[str]:
    names = [Requirement(one).name for one in requirements]
    return {NAMES.get(name, name.replace("-", "_")) for name in names}


def test_all_that_is_public_is_named() -> None:
    """Whatever else can be seen there is a module, and no promise."""
    seen = {name for name, value in vars(client).items() if not name.startswith("_")}
    modules = {name for name in seen if inspect.ismodule(getattr(client, name))}
    assert seen - modules == set(client.__all__)
    assert sorted(client.__all__) == list(client.__all__)


def test_the_commands_and_the_client_need_the_bare_distribution_alone() -> None:
    """They are imported where nothing of the extra `server` can be."""
    extra = _modules(PROJECT["project"]["optional-dependencies"]["server"])
    program = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(extra)!r}))
import importlib, pkgutil, arvados_nats.cli, arvados_nats.client, arvados_nats.commands
for module in pkgutil.iter_modules(arvados_nats.commands.__path__):
    importlib.import_module(f"arvados_nats.commands.{{module.name}}")
assert not {{"rich", "pygments"}} & set(sys.modules), "httpx has loaded its own command line"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_client_needs_two_libraries() -> None:
    """msgspec and websockets."""
    program = """
import sys, arvados_nats.client
known = {"arvados_nats", *sys.stdlib_module_names}
roots = {name.partition(".")[0] for name, module in sys.modules.items()}
print(sorted(root for root in roots - known if not root.startswith("_")))
"""
    done = subprocess.run(
        [sys.executable, "-Sc", "import site; site.main()\n" + program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"msgspec", "websockets"} <= set(eval(done.stdout))
    assert not set(eval(done.stdout)) & {"nats", "httpx", "click", "starlette", "asyncpg", "yaml"}


def test_the_wheel_installs_four_packages() -> None:
    """The sandbox and the benchmarks stay in the source tree."""
    (packages,) = (PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],)
    assert packages == ["arvados_nats", "authcallout", "publishers", "wsproxy"]
