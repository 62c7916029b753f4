# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""docs/install.md's way for Kubernetes leads to a release, by the page's own three commands.

Real: kubectl, Helm, psql and its server, and all that the control plane does. Pods run nothing.
"""

from __future__ import annotations

import base64
import re
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sandbox.sandbox import Sandbox
from sandbox.servers import postgres_binaries
from tests.k8s import site as sites
from tests.k8s.control_plane import Kubernetes
from tests.k8s.site import COMPONENT, Site
from tests.support import install_walk
from tests.support.chart.rendered import TOOLS

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "install.md"
NAMESPACE = "arvados-nats"


def block(language: str, begins: str) -> str:
    """The first block of the page's way for Kubernetes that begins like this."""
    way = PAGE.read_text(encoding="utf-8").partition("## 3a. ")[2].partition("\n### ")[0]
    found = re.search(rf"```{language}\n({begins}.*?)```", way, re.DOTALL)
    assert found is not None
    return found[1]


def commands() -> list[str]:
    """Those that lead to a release."""
    return block("sh", "arvados-nats .*? init ").strip().splitlines()


def place(folder: Path, sandbox: Sandbox, helm: Path, chart: Path) -> str:
    """What a machine has on which somebody walks: programs, the chart, Arvados' file; its PATH."""
    kubectl = TOOLS / "kubectl"
    if not kubectl.exists():
        pytest.skip(f"no {kubectl}: run .ci/prepare helm, or put it there")
    programs = folder / "bin"
    programs.mkdir()
    own = Path(sys.executable).parent / "arvados-nats"
    for name, program in {"helm": helm, "kubectl": kubectl, "arvados-nats": own}.items():
        (programs / name).symlink_to(program)
    psql = f'shift 2; exec {postgres_binaries.find() / "psql"} "{sandbox.database.dsn}" "$@"'
    (programs / "psql").write_text(f"#!/bin/sh\n{psql}\n")
    (programs / "psql").chmod(0o755)
    (folder / "helm").mkdir()
    (folder / "helm" / "arvados-nats").symlink_to(chart)
    (folder / "config.yml").write_text(install_walk.config(sandbox))
    (folder / "gateway.yaml").write_text(block("yaml", "image:"))
    return f"{programs}:/usr/bin:/bin"


async def test_three_commands_make_a_release(
    kubernetes: Kubernetes, helm_program: Path, chart_copy: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    """From Arvados' own file to pods that are all ready, with a role that may log in."""
    site = Site(kubernetes, NAMESPACE, helm_program, chart_copy)
    path = place(tmp_path, sandbox, helm_program, chart_copy)
    await sites.volumes(kubernetes, f"three-{helm_program.name}")
    lines = commands()
    assert len(lines) == 3
    began = time.monotonic()
    for line in lines:
        words = line.replace("/etc/arvados/", "").replace(" init ", " init --yes ")
        said = await site.run("/bin/sh", "-ec", words, path=path, folder=tmp_path)
    took = time.monotonic() - began
    assert "STATUS: deployed" in said
    pods = await kubernetes.listed(f"{site.core}/pods")
    phases = [pod["status"]["phase"] for pod in pods if component(pod) != "keys"]
    assert phases == ["Running"] * 9
    secret = await kubernetes.call("GET", f"{site.core}/secrets/arvados-postgresql")
    role = await asyncpg.connect(base64.b64decode(secret["data"]["dsn"]).decode())
    try:
        await role.execute("SELECT count(*) FROM logs")
    finally:
        await role.close()
    await site.helm("uninstall", NAMESPACE, "--wait", "--timeout", "60s")
    print(f"three commands, {helm_program.name}: {took:.1f} s")  # noqa: T201 (shown by -s)


def component(pod: Any) -> str:
    """Which part of us a pod is."""
    found: str = pod["metadata"]["labels"][COMPONENT]
    return found
