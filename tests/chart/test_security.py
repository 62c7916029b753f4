# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Every pod bears the `restricted` Pod Security Standard, and secrets go where they are needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from arvados_nats.service import keys
from tests.support.chart.rendered import EXAMPLES, Helm, Object, Pod, Rendered

_SOCKETS = {"wsproxy", "wsproxy.next", "wsproxy.former"}
_FORMERS = {"xkey.former", "issuer.former", "system-logs.former"}
SEEDS = {
    "authcallout": {
        "callout",
        "callout-service",
        "sys",
        "issuer",
        "xkey",
        "system-logs",
        *_FORMERS,
    },
    "publishers": {"publisher"},
    "wsproxy": _SOCKETS,
    "test": {"wsproxy"},
    "keys": set[str](),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_pod_passes_the_restricted_standard(helm: Helm, example: str) -> None:
    """Also hooks, the test, and the NATS servers."""
    pods = list(helm.template(example).pods)
    assert len(pods) >= 4
    assert [fault for pod in pods for fault in restricted_faults(pod)] == []


def restricted_faults(pod: Pod) -> Iterator[str]:
    """What the `restricted` standard of Kubernetes 1.30 would refuse."""
    spec, security = pod.spec, pod.spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{pod.owner}: {field}"
    if security.get("runAsUser") == 0:
        yield f"{pod.owner}: runs as root"
    allowed = {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
        "projected", "secret",
    }  # fmt: skip
    for volume in spec.get("volumes", []):
        if not set(volume) - {"name"} <= allowed:
            yield f"{pod.owner}: volume {volume['name']}"
    for container in pod.containers:
        for fault in _container_faults(container, security):
            yield f"{pod.owner}/{container['name']}: {fault}"


def _container_faults(container: Object, pod_security: Object) -> Iterator[str]:
    security = container.get("securityContext", {})
    both = {**pod_security, **security}
    if security.get("privileged"):
        yield "privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "capabilities are kept"
    if set(security.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if both.get("runAsUser") == 0:
        yield "runs as root"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"securityContext": {}}, "allowPrivilegeEscalation"),
        ({"ports": [{"hostPort": 1}]}, "hostPort"),
    ],
)
def test_the_check_itself_sees_faults(helm: Helm, change: Object, fault: str) -> None:
    """A container that is spoilt on purpose is found."""
    pod = helm.template("minimal").pod("wsproxy")
    spoilt = {**pod.spec["containers"][0], **change}
    found = list(restricted_faults(Pod("x", {}, {**pod.spec, "containers": [spoilt]})))
    assert f"x/wsproxy: {fault}" in found


@pytest.mark.parametrize("example", EXAMPLES)
def test_nothing_is_written_but_to_tmp(helm: Helm, example: str) -> None:
    """Root file systems are read only, and /tmp is bounded."""
    for pod in helm.template(example).pods:
        for container in pod.containers:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, pod.owner
        if pod.ours:
            volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
            assert volumes["tmp"]["emptyDir"]["sizeLimit"], pod.owner
            assert {"name": "tmp", "mountPath": "/tmp"} in pod.containers[0]["volumeMounts"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_only_the_key_hook_may_speak_to_kubernetes(helm: Helm, example: str) -> None:
    """No other pod mounts a service account's token, and no stray variables are set."""
    for pod in helm.template(example).pods:
        mounts = pod.labels["app.kubernetes.io/component"] == "keys"
        assert pod.spec["automountServiceAccountToken"] is mounts, pod.owner
        assert pod.spec["enableServiceLinks"] is False, pod.owner


def test_the_key_hook_may_touch_its_own_secret_only(helm: Helm) -> None:
    """Reading and changing are limited by name; Kubernetes cannot limit creating."""
    rules = helm.template("minimal").one("Role", "-keys")["rules"]
    assert rules == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "verbs": ["get", "patch"],
            "resourceNames": ["r-nkeys"],
        },
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    ]


def test_the_key_hook_is_complete_before_anything_else(helm: Helm) -> None:
    """All its parts are hooks of install and upgrade, in order, and none is deleted early."""
    rendered = helm.template("netpol")
    weights = {}
    for found in rendered.objects:
        if found["metadata"]["name"].endswith("-keys"):
            noted = found["metadata"]["annotations"]
            assert noted["helm.sh/hook"] == "pre-install,pre-upgrade"
            assert noted["helm.sh/hook-delete-policy"] == "before-hook-creation"
            weights[found["kind"]] = int(noted["helm.sh/hook-weight"])
    assert sorted(weights, key=lambda kind: weights[kind])[0] == "ServiceAccount"
    assert max(weights, key=lambda kind: weights[kind]) == "Job"
    assert set(weights) == {"ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Job"}


def test_with_existing_keys_no_hook_runs(helm: Helm) -> None:
    """GitOps tools render without a cluster, and the Secret is somebody's own."""
    rendered = helm.template("existing-keys")
    assert not rendered.of("Job")
    assert not rendered.of("Role")
    assert {name for name, _ in _secret_entries(rendered) if "nkeys" in name} == {"sealed-nkeys"}


def _secret_entries(rendered: Rendered) -> Iterator[tuple[str, str]]:
    """(Secret, key) of all that pods mount or take into their environment."""
    for pod in rendered.pods:
        for volume in pod.spec["volumes"]:
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            for secret in (source["secret"] for source in sources if "secret" in source):
                for item in secret["items"]:
                    yield secret.get("secretName", secret.get("name")), item["key"]
        for container in pod.containers:
            for item in container.get("env", []):
                if reference := item.get("valueFrom", {}).get("secretKeyRef"):
                    yield reference["name"], reference["key"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_key_that_is_mounted_is_one_that_is_made(helm: Helm, example: str) -> None:
    """`keys ensure` writes these and no others; the rest are named in the values."""
    former = {f"{role}{keys.FORMER}" for role in keys.ROLES}
    made = {f"{role}.{end}" for role in {*keys.ALL, *former} for end in ("nk", "pub")}
    for secret, key in _secret_entries(helm.template(example)):
        if "nkeys" in secret:
            assert key in made
        else:
            assert (secret, key) in {
                ("arvados-cluster", "SystemRootToken"),
                ("arvados-cluster", "ManagementToken"),
                ("arvados-postgresql", "dsn"),
            }


def test_a_pod_holds_only_the_seeds_it_logs_in_with(helm: Helm) -> None:
    """And the servers hold public keys alone, but for the password of their routes."""
    rendered = helm.template("full")
    for pod in rendered.pods:
        component = pod.labels["app.kubernetes.io/component"]
        if pod.ours:
            held = {
                item["path"].removesuffix(".nk")
                for volume in pod.spec["volumes"]
                if volume["name"] == "keys"
                for source in volume.get("projected", {}).get("sources") or [volume]
                for item in source["secret"]["items"]
            }
            assert held == SEEDS[component]
        else:
            assert not [volume for volume in pod.spec["volumes"] if "secret" in volume]
            for item in pod.containers[0]["env"]:
                if "valueFrom" in item and "secretKeyRef" in item["valueFrom"]:
                    key = item["valueFrom"]["secretKeyRef"]["key"]
                    assert key.endswith(".pub") or key == "routes.nk"


@pytest.mark.parametrize("example", EXAMPLES)
def test_our_services_take_no_secret_from_the_environment(helm: Helm, example: str) -> None:
    """Secrets are files: an environment is inherited, shown and logged."""
    rendered = helm.template(example)
    assert not rendered.of("Secret")
    secret = {
        "ARVADOS_NATS_LOG_TOKEN",
        "ARVADOS_NATS_POSTGRES_DSN",
        "ARVADOS_NATS_MANAGEMENT_TOKEN",
    }
    for pod in rendered.pods:
        if pod.ours:
            for container in pod.containers:
                for item in container.get("env", []):
                    assert "valueFrom" not in item, pod.owner
                    assert item["name"] not in secret


def test_secrets_are_mounted_under_the_names_of_settings(helm: Helm) -> None:
    """The publishers read the log token and the database, everybody the ManagementToken."""
    held = {
        component: {
            item["path"]
            for volume in helm.template("full").pod(component).spec["volumes"]
            if volume["name"] == "secrets"
            for source in volume.get("projected", {}).get("sources") or [volume]
            for item in source["secret"]["items"]
        }
        for component in ("authcallout", "publishers", "wsproxy")
    }
    management = "ARVADOS_NATS_MANAGEMENT_TOKEN"
    assert held == {
        "authcallout": {management},
        "wsproxy": {management},
        "publishers": {management, "ARVADOS_NATS_LOG_TOKEN", "ARVADOS_NATS_POSTGRES_DSN"},
    }
