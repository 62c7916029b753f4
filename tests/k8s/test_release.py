# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A release in a cluster that enforces `restricted`: installed, upgraded, taken back, removed.

Real: admission, binding, controllers, Helm and its hooks, rights of the key hook. Pods run nothing,
so that images, probes and network policies are not tried here.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from arvados_nats.admin import keys_cluster
from arvados_nats.errors import Refused
from arvados_nats.service import keys
from tests.k8s import site as sites
from tests.k8s.control_plane import Kubernetes
from tests.k8s.site import COMPONENT, RefusedByHelm, Site
from tests.support.chart.rendered import CHART, COMPONENTS

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

WAIT = ("--wait", "--timeout", "120s")
VALUES = ("--values", CHART / "ci" / "minimal-values.yaml", "--set", "networkPolicy.enabled=true")


@pytest.fixture
async def site(kubernetes: Kubernetes, helm_program: Path, chart_copy: Path) -> Site:
    namespace = f"with-{helm_program.name}"
    await sites.prepare(kubernetes, namespace)
    return Site(kubernetes, namespace, helm_program, chart_copy)


async def workloads(site: Site) -> dict[str, tuple[int, int]]:
    """Name -> pods wanted, pods ready."""
    return {
        found["metadata"]["name"]: (
            found["spec"]["replicas"],
            found["status"].get("readyReplicas", 0),
        )
        for kind in ("deployments", "statefulsets")
        for found in await site.kubernetes.listed(f"{site.apps}/{kind}")
    }


async def drain_seconds(site: Site) -> str:
    """What wsproxy's pods are told."""
    found = await site.kubernetes.call("GET", f"{site.apps}/deployments/r-arvados-nats-wsproxy")
    (told,) = (
        item["value"]
        for item in found["spec"]["template"]["spec"]["containers"][0]["env"]
        if item["name"] == "ARVADOS_NATS_DRAIN_SECONDS"
    )
    return str(told)


async def test_a_release_lives(site: Site) -> None:
    """Every step ends well with `--wait`, and the keys of the first installation stay."""
    said = await site.helm("install", "r", site.chart, *VALUES, *WAIT)
    assert "violate PodSecurity" not in said
    names = {f"r-arvados-nats-{component}" for component in COMPONENTS}
    assert await workloads(site) == {**dict.fromkeys(names, (2, 2)), "r-nats": (3, 3)}
    first = await site.nkeys()
    assert set(first) == {f"{role}.{end}" for role in keys.ALL for end in ("nk", "pub")}
    assert site.hooks == [["keys", "ensure", "--secret", "r-nkeys"]]

    await site.helm("test", "r", "--timeout", "60s")
    assert site.hooks[-1][:2] == ["check", "connections"]

    await forget_one_key(site)
    change = ("--reset-then-reuse-values", "--set", "wsproxy.drainSeconds=30")
    said = await site.helm("upgrade", "r", site.chart, *change, *WAIT)
    assert "violate PodSecurity" not in said
    assert await drain_seconds(site) == "30"
    second = await site.nkeys()
    assert {name for name in first if first[name] != second[name]} == {"sys.nk", "sys.pub"}

    await site.helm("rollback", "r", "1", *WAIT)
    assert await drain_seconds(site) == "45"
    assert await site.nkeys() == second
    history = json.loads(await site.helm("history", "r", "--output", "json"))
    assert [each["status"] for each in history] == ["superseded", "superseded", "deployed"]
    assert (await workloads(site))["r-nats"] == (3, 3)

    await larger_volumes_as_upgrading_says(site)
    await the_hook_may_do_no_more(site)
    await site.helm("uninstall", "r", *WAIT)
    await only_what_upgrading_names_is_left(site, second)


async def forget_one_key(site: Site) -> None:
    """As if this version had a new identity."""
    gone = {"data": {"sys.nk": None, "sys.pub": None}}
    path = f"{site.core}/secrets/r-nkeys"
    await site.kubernetes.call("PATCH", path, gone, "application/merge-patch+json")


async def larger_volumes_as_upgrading_says(site: Site) -> None:
    """Not in place; with the StatefulSet made anew around pods and claims that stay."""
    size = "nats.config.jetstream.fileStore.pvc.size=30Gi"
    change = ("upgrade", "r", site.chart, "--reset-then-reuse-values", "--set", size, *WAIT)
    servers = f"{site.apps}/statefulsets/r-nats"
    before = await claims(site)
    with pytest.raises(RefusedByHelm, match="updates to statefulset spec"):
        await site.helm(*change)
    assert (await workloads(site))["r-nats"] == (3, 3)

    orphan = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}
    await site.kubernetes.call("DELETE", servers, orphan)

    async def gone() -> bool:
        return "r-nats" not in await workloads(site)

    await sites.until(gone, "the StatefulSet is gone")
    pods = await site.kubernetes.listed(f"{site.core}/pods")
    assert sum(pod["metadata"]["name"].startswith("r-nats-") for pod in pods) == 3

    await site.helm(*change)
    assert (await workloads(site))["r-nats"] == (3, 3)
    (template,) = (await site.kubernetes.call("GET", servers))["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "30Gi"
    assert await claims(site) == before


async def claims(site: Site) -> dict[str, str]:
    """Name -> uid of the claims that docs select to delete."""
    wanted = {"app.kubernetes.io/instance": "r", COMPONENT: "nats"}
    selector = ",".join(f"{name}={value}" for name, value in wanted.items())
    path = f"{site.core}/persistentvolumeclaims"
    found = await site.kubernetes.call("GET", path, labelSelector=selector)
    assert len(found["items"]) == 3
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in found["items"]}


async def the_hook_may_do_no_more(site: Site) -> None:
    """Its account reads its own Secret, and no other."""
    cluster = await site.hook_cluster()
    assert keys_cluster.ensure(cluster, "r-nkeys") == []
    with pytest.raises(Refused):
        keys_cluster.ensure(cluster, "arvados-cluster")


async def only_what_upgrading_names_is_left(site: Site, stored: dict[str, str]) -> None:
    """The keys, which can be used again, and the parts of the hook, which helm does not own."""

    async def no_pods() -> bool:
        left = await site.kubernetes.listed(f"{site.core}/pods")
        return all(pod["metadata"]["labels"].get(COMPONENT) == "keys" for pod in left)

    await sites.until(no_pods, "all pods are gone")
    await claims(site)
    assert await site.nkeys() == stored
    seed = keys.parse_seed(base64.b64decode(stored["publisher.nk"]).decode())
    assert seed.public == base64.b64decode(stored["publisher.pub"]).decode()
    assert await workloads(site) == {}
    for path in (
        f"{site.core}/services",
        f"/apis/policy/v1/namespaces/{site.namespace}/poddisruptionbudgets",
        f"/apis/batch/v1/namespaces/{site.namespace}/jobs",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{site.namespace}/roles",
        f"{site.core}/serviceaccounts",
    ):
        left = await site.kubernetes.listed(path)
        ours = [item for item in left if "app.kubernetes.io/instance" in labels(item)]
        assert {labels(item)[COMPONENT] for item in ours} <= {"keys"}, path


def labels(found: Any) -> dict[str, str]:
    """Of any object."""
    told: dict[str, str] = found["metadata"].get("labels", {})
    return told
