# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Every object of every example is taken by the API server, and every pod by `restricted`.

Nothing is kept: each is a dry run, with unknown and doubled fields refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.k8s import site as sites
from tests.k8s.control_plane import Kubernetes, RefusedByKubernetes
from tests.k8s.site import until
from tests.support.chart.rendered import EXAMPLES, Helm, Rendered

pytestmark = pytest.mark.kubernetes

NAMESPACE = "admission"
OF_OPERATORS = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}
"""Kinds that no API server knows by itself."""


@pytest.fixture(scope="module")
async def namespace(kubernetes: Kubernetes) -> str:
    """Path of a namespace with a default service account."""
    await sites.prepare(kubernetes, NAMESPACE)
    await kubernetes.make(
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        {"metadata": {"name": "important"}, "value": 1},
    )

    async def has_account() -> bool:
        return bool(await kubernetes.listed(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"))

    await until(has_account, "the namespace has its account")
    return NAMESPACE


async def collection(kubernetes: Kubernetes, found: dict[str, Any]) -> str | None:
    """Path that objects of this kind are posted to; None for a kind that is not known."""
    version = found["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        resources = (await kubernetes.call("GET", root))["resources"]
    except RefusedByKubernetes:
        return None
    for resource in resources:
        if resource["kind"] == found["kind"] and "/" not in resource["name"]:
            inside = f"namespaces/{NAMESPACE}/" if resource["namespaced"] else ""
            return f"{root}/{inside}{resource['name']}"
    return None


@pytest.mark.parametrize("example", EXAMPLES)
async def test_every_object_is_taken(
    kubernetes: Kubernetes, namespace: str, helm: Helm, example: str
) -> None:
    """Known fields, right types, valid by the server's own rules."""
    unknown = set()
    for found in _objects(helm, example):
        path = await collection(kubernetes, found)
        if path is None:
            unknown.add(found["kind"])
        else:
            found["metadata"].pop("namespace", None)
            if found["kind"] == "Pod":
                found["spec"]["serviceAccountName"] = "default"
            await kubernetes.make(path, found, dryRun="All")
    assert unknown <= OF_OPERATORS


def _objects(helm: Helm, example: str) -> list[dict[str, Any]]:
    return Rendered(helm.template(example).text).objects


@pytest.mark.parametrize("example", EXAMPLES)
async def test_every_pod_is_admitted(
    kubernetes: Kubernetes, namespace: str, helm: Helm, example: str
) -> None:
    """As the pods that controllers would make, in a namespace that enforces `restricted`."""
    for pod in Rendered(helm.template(example).text).pods:
        spec = {**pod.spec, "serviceAccountName": "default"}
        metadata = {"generateName": "pod-", "labels": pod.labels}
        made = await kubernetes.make(
            f"/api/v1/namespaces/{namespace}/pods",
            {"metadata": metadata, "spec": spec},
            dryRun="All",
        )
        assert made["metadata"]["name"].startswith("pod-"), pod.owner


async def test_what_is_not_restricted_is_refused(kubernetes: Kubernetes, namespace: str) -> None:
    """So that what was admitted above means something."""
    pod = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    with pytest.raises(RefusedByKubernetes, match="violates PodSecurity"):
        await kubernetes.make(f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")


async def test_a_field_that_does_not_exist_is_refused(
    kubernetes: Kubernetes, namespace: str
) -> None:
    """The other half of the same doubt."""
    service = {"metadata": {"name": "x"}, "spec": {"ports": [{"port": 1}], "selectr": {}}}
    with pytest.raises(RefusedByKubernetes, match="selectr"):
        await kubernetes.make(f"/api/v1/namespaces/{namespace}/services", service, dryRun="All")
