# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes control plane as processes on loopback, and its API.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are the real ones; kwok stands for
the kubelet of one node, so that pods are admitted, bound and reported as running, and run nothing.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from sandbox.servers import child, ports, tls

STAGES = Path(__file__).parent / "stages.yaml"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
_START_SECONDS = 60.0
_NODE = {
    "metadata": {"name": "node", "annotations": {"kwok.x-k8s.io/node": "fake"}},
    "status": {
        "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "200"},
        "capacity": {"cpu": "64", "memory": "256Gi", "pods": "200"},
    },
}


class RefusedByKubernetes(Exception):
    """The API said no; the text is its message."""


@dataclass(frozen=True)
class Kubernetes:
    """The API as its administrator, and where it is for others."""

    client: httpx.AsyncClient
    url: str
    authority: Path
    kubeconfig: Path

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        kind: str = "application/json",
        **query: str,
    ) -> Any:
        """What the API answers; `RefusedByKubernetes` for anything but success."""
        answer = await self.client.request(
            method, path, params=query, content=json.dumps(body), headers={"Content-Type": kind}
        )
        if not answer.is_success:
            raise RefusedByKubernetes(f"{answer.status_code} {answer.text}")
        return answer.json()

    async def listed(self, path: str) -> list[Any]:
        """The items of a collection."""
        found: list[Any] = (await self.call("GET", path))["items"]
        return found

    async def make(self, path: str, found: object, **query: str) -> Any:
        """Create an object; unknown and doubled fields are refused."""
        return await self.call("POST", path, found, fieldValidation="Strict", **query)


@dataclass(frozen=True)
class _Place:
    """Files and addresses of the control plane."""

    programs: Path
    folder: Path
    certificates: tls.Certificates
    etcd: str
    api_port: int
    token: str

    @property
    def api(self) -> str:
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"


@asynccontextmanager
async def running(programs: Path, folder: Path) -> AsyncIterator[Kubernetes]:
    """All of it, with one node that is ready, and gone with everything in it afterwards."""
    free = ports.candidates()
    place = _Place(
        programs,
        folder,
        tls.make(folder / "tls"),
        f"http://127.0.0.1:{next(free)}",
        next(free),
        secrets.token_hex(16),
    )
    (folder / "tokens").write_text(f'{place.token},admin,admin,"system:masters"\n')
    place.kubeconfig.write_text(_kubeconfig(place))
    async with AsyncExitStack() as exits:
        client = await exits.enter_async_context(
            httpx.AsyncClient(
                base_url=place.api,
                headers={"Authorization": f"Bearer {place.token}"},
                verify=place.certificates.client_context(),
                timeout=30,
            )
        )
        kubernetes = Kubernetes(client, place.api, place.certificates.authority, place.kubeconfig)
        etcd = _start(place, "etcd", _etcd(place, f"http://127.0.0.1:{next(free)}"), exits)
        await child.ready(etcd, lambda: _answers(f"{place.etcd}/health"), _START_SECONDS)
        api = _start(place, "kube-apiserver", _apiserver(place), exits)
        await child.ready(api, lambda: _answers("/readyz", client), _START_SECONDS)
        await kubernetes.make("/api/v1/nodes", _NODE)
        for name, arguments in _controllers(place).items():
            _start(place, name, arguments, exits)
        await _has_node(kubernetes)
        yield kubernetes


def _start(
    place: _Place, name: str, arguments: Sequence[str], exits: AsyncExitStack
) -> child.Child:
    process = child.start([place.programs / name, *arguments], log=place.folder / f"{name}.log")
    exits.push_async_callback(process.stop, signal.SIGTERM, 5)
    return process


def _etcd(place: _Place, peer: str) -> list[str]:
    return [
        f"--data-dir={place.folder / 'etcd'}",
        f"--listen-client-urls={place.etcd}",
        f"--advertise-client-urls={place.etcd}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]


def _apiserver(place: _Place) -> list[str]:
    certificate, key = place.certificates.certificate, place.certificates.key
    return [
        f"--etcd-servers={place.etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={place.api_port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--token-auth-file={place.folder / 'tokens'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={certificate}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.96.0.0/16",
    ]


def _controllers(place: _Place) -> dict[str, list[str]]:
    """The programs that are clients of the API, and their arguments."""
    kubeconfig = f"--kubeconfig={place.kubeconfig}"
    alone = [kubeconfig, "--leader-elect=false", "--secure-port=0"]
    return {
        "kube-controller-manager": [
            *alone,
            f"--root-ca-file={place.certificates.authority}",
            f"--service-account-private-key-file={place.certificates.key}",
        ],
        "kube-scheduler": alone,
        "kwok": [
            kubeconfig,
            f"--config={STAGES}",
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=40",
        ],
    }


def _kubeconfig(place: _Place) -> str:
    """The format's own names; JSON would do as well."""
    cluster = {"server": place.api, "certificate-authority": str(place.certificates.authority)}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": place.token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
            "current-context": "here",
        }
    )


async def _answers(url: str, client: httpx.AsyncClient | None = None) -> bool:
    try:
        if client:
            return (await client.get(url)).is_success
        async with httpx.AsyncClient() as plain:
            return (await plain.get(url)).is_success
    except httpx.HTTPError:
        return False


async def _has_node(kubernetes: Kubernetes) -> None:
    """Ready, and without the taint that it bore until then."""
    async with asyncio.timeout(_START_SECONDS):
        while True:
            node = await kubernetes.call("GET", "/api/v1/nodes/node")
            conditions = node["status"].get("conditions", [])
            ready = any(each["type"] == "Ready" for each in conditions)
            if ready and not node["spec"].get("taints"):
                return
            await asyncio.sleep(0.1)
