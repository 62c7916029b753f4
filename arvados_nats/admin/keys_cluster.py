# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Complete the Secret of nkeys in a Kubernetes cluster, from inside it.

The chart runs this as a hook before each install and upgrade: it creates what is missing and never
overwrites, so that an upgrade keeps every identity (docs/facts/helm.md 1, "generated secrets"). It
needs `get`, `create` and `patch` on this one Secret. The only place that speaks to Kubernetes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from arvados_nats import trust
from arvados_nats.errors import BadInput, ConfigError, Refused, Unavailable, said
from arvados_nats.service import keys

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_SECONDS = 20.0
_TRIES = 5
_MEANINGFUL = {("GET", 404), ("POST", 409), ("PATCH", 409)}
"""Refusals that are answers: there is none yet, somebody else was faster."""


@dataclass(frozen=True, slots=True)
class KubernetesApi:
    """Where the cluster's API is, and as whom we speak to it."""

    url: str
    token: str
    authority: str | None
    namespace: str


def of_this_pod(namespace: str | None = None, account: Path = _ACCOUNT) -> KubernetesApi:
    """The cluster that this pod runs in; `ConfigError` outside of one."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT_HTTPS"))
    if not host:
        raise ConfigError("this does not run in a Kubernetes pod: KUBERNETES_SERVICE_HOST is unset")
    try:
        token = (account / "token").read_text().strip()
        namespace = namespace or (account / "namespace").read_text().strip()
    except OSError as error:
        raise ConfigError(f"the pod mounts no service account token: {error.filename}") from error
    shown = f"[{host}]" if ":" in host else host
    url = f"https://{shown}:{port or 443}"
    return KubernetesApi(url, token, str(account / "ca.crt"), namespace)


def missing(entries: Mapping[str, str]) -> dict[str, str]:
    """What a Secret with these entries lacks: new seeds with their public keys.

    A public key that is missing beside its seed is derived from it. `ConfigError` for a seed that
    cannot be read: it is somebody's, and is not replaced.
    """
    new: dict[str, str] = {}
    for role in keys.ALL:
        kind = keys.ROLES[role.removesuffix(keys.NEXT)]
        text = entries.get(f"{role}.nk")
        try:
            seed = keys.generate(kind) if text is None else keys.parse_seed(text)
        except BadInput as error:
            raise ConfigError(f"{role}.nk in the Secret: {error}") from error
        if text is None:
            new |= {f"{role}.nk": seed.text, f"{role}.pub": seed.public}
        elif f"{role}.pub" not in entries:
            new[f"{role}.pub"] = seed.public
    return new


def ensure(cluster: KubernetesApi, name: str) -> list[str]:
    """Complete the Secret `name`, creating it if need be; the names of the entries that are new.

    Refused when the service account may not, Unavailable when the API does not answer.
    """
    trusted = trust.authority(cluster.authority)
    headers = {"Authorization": f"Bearer {cluster.token}"}
    with httpx.Client(
        base_url=cluster.url, headers=headers, verify=trusted, timeout=_TIMEOUT_SECONDS
    ) as client:
        for _ in range(_TRIES):
            new = _try(client, f"/api/v1/namespaces/{cluster.namespace}/secrets", name)
            if new is not None:
                return new
    raise Unavailable(f"the Secret {name} is being changed by somebody else all the time")


def _try(client: httpx.Client, secrets: str, name: str) -> list[str] | None:
    """One attempt; None when somebody else changed the Secret in between."""
    found = _call(client, "GET", f"{secrets}/{name}")
    if found.status_code == httpx.codes.NOT_FOUND:
        new = missing({})
        body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": new}
        answer = _call(client, "POST", secrets, {**body, "metadata": {"name": name}})
    else:
        secret = found.json()
        new = missing(_decoded(secret.get("data") or {}))
        if not new:
            return []
        version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
        patch = {"metadata": version, "stringData": new}
        answer = _call(client, "PATCH", f"{secrets}/{name}", patch)
    return None if answer.status_code == httpx.codes.CONFLICT else sorted(new)


def _decoded(data: Mapping[str, str]) -> dict[str, str]:
    return {
        name: base64.b64decode(value).decode("ascii", errors="replace")
        for name, value in data.items()
    }


def _call(client: httpx.Client, method: str, path: str, body: object = None) -> httpx.Response:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    try:
        answer = client.request(method, path, json=body, headers={"Content-Type": kind})
    except httpx.HTTPError as error:
        raise Unavailable(f"the Kubernetes API does not answer: {said(error)}") from error
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise Refused(f"the service account may not {method} {path}")
    if not answer.is_success and (method, answer.status_code) not in _MEANINGFUL:
        raise Unavailable(f"{method} {path} was answered with {answer.status_code}")
    return answer
