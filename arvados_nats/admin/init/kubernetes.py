# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the chart needs of a site, as files: values and the Secrets that they name."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from arvados_nats.admin.init import machine
from arvados_nats.admin.init.answers import Answers
from arvados_nats.admin.init.written import File
from arvados_nats.errors import BadInput, ConfigError
from arvados_nats.nats.addresses import is_loopback
from arvados_nats.postgres import arvados_tables
from arvados_nats.postgres import dsn as postgres_dsn

FOLDER, SECRETS = Path("arvados-nats"), "secrets.yaml"
NAMESPACE = "arvados-nats"
_CLUSTER, _DATABASE, _AUTHORITY = "arvados-cluster", "arvados-postgresql", "arvados-ca"
_CA_FILE, _DSN = "ARVADOS_NATS_ARVADOS_CA_FILE", "ARVADOS_NATS_POSTGRES_DSN"
_FILES = ("sslrootcert", "sslcert", "sslkey", "passfile")
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
    yield File(folder / SECRETS, text, 0o600, (*tokens, answers.dsn))
    values = yaml.safe_dump(_values(answers, cluster, host), sort_keys=False)
    yield File(folder / "values.yaml", values)


def dsn(text: str) -> str:
    """Our login in what an earlier run has written; `BadInput` where somebody took it out."""
    try:
        for each in yaml.safe_load_all(text):
            if each and each["metadata"]["name"] == _DATABASE:
                return str(each["stringData"]["dsn"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInput("no Secret with a dsn") from error
    raise BadInput(f"no Secret {_DATABASE}")


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
            "apiHost": _api_host(answers.api_host),
            "existingSecret": _CLUSTER,
        },
        "postgresql": {"existingSecret": _DATABASE, **_port(answers.dsn)},
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


def _port(dsn: str) -> dict[str, int]:
    """For the NetworkPolicy, where it is another than PostgreSQL's own."""
    options = postgres_dsn.options(dsn)
    text = options.get("port") or options.get("host", "").rpartition("]")[2].partition(":")[2]
    return {"port": int(text)} if text.isdecimal() and text != "5432" else {}


def _api_host(told: str) -> str:
    scheme, _, host = told.rpartition("://")
    if scheme == "http":
        raise ConfigError(f"ARVADOS_API_HOST: pods ask Arvados over https alone, not {told}")
    return host.removesuffix("/")


def following(answers: Answers, folder: Path, namespace: str) -> Iterator[str]:
    """The commands that come next, and what of a machine a pod has not."""
    options = postgres_dsn.options(answers.dsn)
    host = options.get("host", "/")
    bare = host.count(":") > 1 and not host.startswith("[")
    if host.startswith("/") or is_loopback(f"[{host}]" if bare else host):
        yield f"NOTE: the database's host, {host}, is in a pod the pod itself. Give its address:"
        yield f"  export {_DSN}='host=… dbname=… user=…'  # and run this again"
    for file in (options[name] for name in _FILES if options.get(name, "").startswith("/")):
        yield f"NOTE: the pods have no {file}: mount it (docs/install.md, step 1)."
    yield "Next:"
    database = shlex.quote(answers.database)
    yield f"  psql -d {database} < {folder}/role.sql  # as PostgreSQL's superuser"
    yield (
        f"  kubectl apply -f {folder}/{SECRETS} && helm upgrade --install arvados-nats"
        f" helm/arvados-nats -n {namespace} -f {folder}/values.yaml -f gateway.yaml"
        " --wait --timeout 10m"
    )
    yield "gateway.yaml is yours to write: your registry and your gateway (docs/install.md, 3a)."
