# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the chart needs of a site, as files: values and the Secrets that they name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from arvados_nats.admin.init import machine
from arvados_nats.admin.init.answers import Answers
from arvados_nats.admin.init.written import File
from arvados_nats.postgres import arvados_tables

FOLDER = Path("arvados-nats")
NAMESPACE = "arvados-nats"
_CLUSTER, _DATABASE, _AUTHORITY = "arvados-cluster", "arvados-postgresql", "arvados-ca"
_CA_FILE = "ARVADOS_NATS_ARVADOS_CA_FILE"
_SETTINGS = {
    "ARVADOS_NATS_ROLE_GROUPS_VISIBLE_TO_ALL": ("publishers", "roleGroupsVisibleToAll"),
    "ARVADOS_NATS_SEND_TIMEOUT": ("wsproxy", "sendTimeout"),
    "ARVADOS_NATS_ALLOWED_ORIGINS": ("wsproxy", "allowedOrigins"),
}


def files(
    answers: Answers, folder: Path, cluster: str, namespace: str, host: str | None
) -> Iterator[File]:
    """Values for `helm install -f`, what `kubectl apply -f` makes first, and the role's SQL."""
    sql = machine.role_sql(arvados_tables.ROLE, answers.password)
    yield File(folder / "role.sql", sql, 0o600, (answers.password,))
    tokens = (answers.log_token, answers.management_token)
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        _secret(_CLUSTER, namespace, SystemRootToken=tokens[0], ManagementToken=tokens[1]),
        _secret(_DATABASE, namespace, dsn=answers.dsn),
        *_authority(answers, namespace),
    ]
    text = yaml.safe_dump_all(objects, sort_keys=False, width=1000)
    yield File(folder / "secrets.yaml", text, 0o600, (*tokens, answers.dsn))
    values = yaml.safe_dump(_values(answers, cluster, host), sort_keys=False)
    yield File(folder / "values.yaml", values)


def dsn(folder: Path) -> str:
    """What an earlier run has written, for its password; empty where there is none."""
    path = folder / "secrets.yaml"
    if not path.exists():
        return ""
    told = (each.get("stringData", {}) for each in yaml.safe_load_all(path.read_text()))
    return "".join(str(entries["dsn"]) for entries in told if "dsn" in entries)


def _secret(name: str, namespace: str, **entries: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "stringData": entries,
    }


def _authority(answers: Answers, namespace: str) -> Iterator[dict[str, Any]]:
    """Who signed Arvados' certificate, where that is a private one."""
    if path := answers.more.get(_CA_FILE):
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": _AUTHORITY, "namespace": namespace},
            "data": {"ca-certificates.crt": Path(path).read_text(encoding="utf-8")},
        }


def _values(answers: Answers, cluster: str, host: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "arvados": {
            "clusterID": cluster,
            "apiHost": answers.api_host.partition("://")[2] or answers.api_host,
            "existingSecret": _CLUSTER,
        },
        "postgresql": {"existingSecret": _DATABASE},
        "publishers": {"settings": {}},
        "wsproxy": {"settings": {}},
    }
    if "ARVADOS_API_HOST_INSECURE" in answers.more:
        values["arvados"]["insecureSkipVerify"] = True
    if _CA_FILE in answers.more:
        values["arvados"]["caBundle"] = {"existingConfigMap": _AUTHORITY}
    if host:
        values["wsproxy"]["externalURL"] = f"wss://{host}/websocket"
    for variable, (component, name) in _SETTINGS.items():
        if variable in answers.more:
            values[component]["settings"][name] = answers.more[variable]
    return {name: value for name, value in values.items() if value != {"settings": {}}}


def following(answers: Answers, folder: Path, namespace: str) -> str:
    """The commands that come next."""
    return "\n".join(
        (
            "Next:",
            f"  psql -d {answers.database} < {folder}/role.sql  # as PostgreSQL's superuser",
            f"  kubectl apply -f {folder}/secrets.yaml && helm install arvados-nats"
            f" helm/arvados-nats -n {namespace} -f {folder}/values.yaml --wait --timeout 10m",
        )
    )
