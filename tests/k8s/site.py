# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A namespace that enforces the `restricted` standard, with what docs/install.md has people make.

A hook's pod has no kubelet here, so its part is played: what the key hook does is done by the very
code that the image runs, with the token of the hook's own service account.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arvados_nats.admin import keys_cluster
from tests.k8s.control_plane import Kubernetes

COMPONENT = "app.kubernetes.io/component"
_PATCH = "application/merge-patch+json"
_SECURITY = "pod-security.kubernetes.io/"


class RefusedByHelm(Exception):
    """Helm failed; the text is what it said."""


@dataclass(frozen=True)
class Site:
    """One namespace, one version of Helm, one chart."""

    kubernetes: Kubernetes
    namespace: str
    program: Path
    chart: Path
    hooks: list[list[str]] = field(default_factory=list)
    """The commands of hooks that have run, in order."""

    @property
    def core(self) -> str:
        """Path of the namespace's plain objects."""
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def apps(self) -> str:
        """Path of Deployments and StatefulSets."""
        return f"/apis/apps/v1/namespaces/{self.namespace}"

    async def helm(self, command: str, *arguments: str | Path) -> str:
        """All that Helm says, with hooks run meanwhile; `RefusedByHelm` when it fails."""
        return await self.run(self.program, command, *arguments, "--namespace", self.namespace)

    async def run(
        self, *words: str | Path, path: str = os.defpath, folder: Path | None = None
    ) -> str:
        """The same of any program."""
        # Helm 4 looks for plugins and caches below these.
        home = self.kubernetes.kubeconfig.parent
        environment = {
            "PATH": path,
            "HOME": str(home),
            "KUBECONFIG": str(self.kubernetes.kubeconfig),
            "LANG": "C.UTF-8",
        }
        process = await asyncio.create_subprocess_exec(
            *words, env=environment, cwd=folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with _beside(self._run_hooks()):
            said, _ = await process.communicate()
        if process.returncode:
            raise RefusedByHelm(f"{said.decode()}\n{await self._not_well()}")
        return said.decode()

    async def _not_well(self) -> str:
        """Pods that do not run, and what controllers said last."""
        pods = await self.kubernetes.listed(f"{self.core}/pods")
        events = await self.kubernetes.listed(f"{self.core}/events")
        lines = [f"{pod['metadata']['name']}: {pod['status']}" for pod in pods]
        lines += [f"{each['reason']}: {each['message']}" for each in events[-20:]]
        return "\n".join(line for line in lines if "'phase': 'Running'" not in line)

    async def nkeys(self) -> dict[str, str]:
        """The Secret of keys as it is stored."""
        secret = await self.kubernetes.call("GET", f"{self.core}/secrets/r-nkeys")
        found: dict[str, str] = secret["data"]
        return found

    async def hook_cluster(
        self, account: str = "r-arvados-nats-keys"
    ) -> keys_cluster.KubernetesApi:
        """What the key hook's pod knows of the cluster, and whom it is taken for."""
        made = await self.kubernetes.make(
            f"{self.core}/serviceaccounts/{account}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        )
        authority = str(self.kubernetes.authority)
        token = made["status"]["token"]
        return keys_cluster.KubernetesApi(self.kubernetes.url, token, authority, self.namespace)

    async def _run_hooks(self) -> None:
        while True:
            for pod in await self.kubernetes.listed(f"{self.core}/pods"):
                waits = pod["status"].get("phase") == "Pending" and pod["spec"].get("nodeName")
                if waits and pod["metadata"]["labels"].get(COMPONENT) in ("keys", "test"):
                    await self._run_hook(pod)
            await asyncio.sleep(0.1)

    async def _run_hook(self, pod: Any) -> None:
        command: list[str] = pod["spec"]["containers"][0]["args"]
        self.hooks.append(command)
        if command[:3] == ["keys", "ensure", "--secret"]:
            cluster = await self.hook_cluster(pod["spec"]["serviceAccountName"])
            await asyncio.to_thread(keys_cluster.ensure, cluster, command[3])
        path = f"{self.core}/pods/{pod['metadata']['name']}/status"
        await self.kubernetes.call("PATCH", path, {"status": {"phase": "Succeeded"}}, _PATCH)


@asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run it as long as the block lasts; its failure is the block's."""
    task = asyncio.ensure_future(work)
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def prepare(kubernetes: Kubernetes, namespace: str) -> None:
    """The namespace, its Secrets, and volumes."""
    labels = {f"{_SECURITY}{mode}": "restricted" for mode in ("enforce", "warn")}
    await kubernetes.make("/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
    for name, told in (
        ("arvados-cluster", {"SystemRootToken": "t", "ManagementToken": "m"}),
        ("arvados-postgresql", {"dsn": "host=db"}),
    ):
        secret = {"metadata": {"name": name}, "stringData": told}
        await kubernetes.make(f"/api/v1/namespaces/{namespace}/secrets", secret)
    await volumes(kubernetes, namespace)


async def volumes(kubernetes: Kubernetes, namespace: str) -> None:
    """Room for three NATS servers."""
    for number in range(3):
        volume = {
            "metadata": {"name": f"{namespace}-{number}"},
            "spec": {
                "capacity": {"storage": "24Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/nowhere"},
            },
        }
        await kubernetes.make("/api/v1/persistentvolumes", volume)


async def until(condition: Callable[[], Awaitable[object]], what: str, within: float = 60) -> None:
    """Wait until the condition holds; fails with `what`."""
    try:
        async with asyncio.timeout(within):
            while True:
                if await condition():
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {within} s: {what}") from None
