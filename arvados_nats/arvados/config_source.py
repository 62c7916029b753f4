# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings that stand in Arvados' own config.yml already, so that nobody writes them twice.

The last source of every service's settings: what the environment and the folder of secrets have
comes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from arvados_nats import urls
from arvados_nats.arvados import config as arvados_config
from arvados_nats.arvados.config import ClusterConfig
from arvados_nats.errors import BadInput, ConfigError


class ArvadosConfigSource(PydanticBaseSettingsSource):
    """What one cluster's part of the file says; ConfigError gives the line and the reason."""

    def __init__(self, settings_cls: type[BaseSettings], file: Path, cluster: str) -> None:
        super().__init__(settings_cls)
        self._file = file
        self._name = cluster

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Part of the interface; `__call__` does all of it."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        try:
            cluster = arvados_config.choose(arvados_config.read(self._file), self._name)
            found = {name: read(cluster) for name, read in _SETTINGS.items()}
        except BadInput as error:
            raise ConfigError(f"arvados_config: {self._file}: {error}") from error
        fields = self.settings_cls.model_fields
        return {
            name: value
            for name, value in found.items()
            if value is not None and name in fields and not self._is_set(name, fields[name])
        }

    def _is_set(self, name: str, field: FieldInfo) -> bool:
        alias = field.validation_alias
        names = {name, *(map(str, alias.choices) if isinstance(alias, AliasChoices) else ())}
        return any(known.lower() in {n.lower() for n in names} for known in self.current_state)


def _text(path: str) -> Callable[[ClusterConfig], str | None]:
    return lambda cluster: cluster.text(path) or None


def _host(cluster: ClusterConfig) -> str | None:
    """Where API calls go: the address that everybody uses, whose certificate is right."""
    path = "Services.Controller.ExternalURL"
    url = cluster.text(path)
    if not url:
        return None
    parts = urls.split(url)
    if not parts.netloc:
        raise BadInput(f"line {cluster.line(path)}: {cluster.name}.{path}: it names no host")
    return parts.netloc if parts.scheme == "https" else f"{parts.scheme}://{parts.netloc}"


WORKBENCHES = ("Workbench2", "Workbench1")


def _workbench(cluster: ClusterConfig) -> tuple[str, ...] | None:
    pages = (cluster.text(f"Services.{name}.ExternalURL") for name in WORKBENCHES)
    return origins(pages) or None


def origins(pages: Iterable[str]) -> tuple[str, ...]:
    """Of Arvados' own pages at these addresses, as browsers send them."""
    found = []
    for page in pages:
        parts = urls.split(page)
        if parts.scheme and parts.hostname:
            default = {"https": 443, "http": 80}.get(parts.scheme)
            host = parts.netloc.lower().removesuffix(f":{default}")
            found.append(f"{parts.scheme}://{host}")
    return tuple(dict.fromkeys(found))


def _database(cluster: ClusterConfig) -> str | None:
    """A libpq connection string."""
    return (
        " ".join(
            f"{name.lower()}='{value.translate(_QUOTED)}'"
            for name, value in cluster.texts("PostgreSQL.Connection").items()
        )
        or None
    )


_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
"""As Arvados' own reader of YAML has it."""
_QUOTED = str.maketrans({"\\": "\\\\", "'": "\\'"})


def _flag(path: str, default: bool | None = None) -> Callable[[ClusterConfig], bool | None]:
    def read(cluster: ClusterConfig) -> bool | None:
        text = cluster.text(path).lower()
        if text not in ("", *_TRUE, *_FALSE):
            raise BadInput(
                f"line {cluster.line(path)}: {cluster.name}.{path}: it is neither true nor false"
            )
        return default if not text else text in _TRUE

    return read


def _seconds(path: str) -> Callable[[ClusterConfig], float | None]:
    def read(cluster: ClusterConfig) -> float | None:
        text = cluster.text(path)
        found = arvados_config.duration(text) if text else None
        if text and found is None:
            raise BadInput(
                f"line {cluster.line(path)}: {cluster.name}.{path}: it is no duration such as 60s"
            )
        return found.total_seconds() if found else None

    return read


_SETTINGS: Mapping[str, Callable[[ClusterConfig], Any]] = {
    "arvados_api_host": _host,
    "arvados_api_host_insecure": _flag("TLS.Insecure"),
    "postgres_dsn": _database,
    "management_token": _text("ManagementToken"),
    "log_token": _text("SystemRootToken"),
    "role_groups_visible_to_all": _flag("Users.RoleGroupsVisibleToAll", default=True),
    "send_timeout": _seconds("API.SendTimeout"),
    "allowed_origins": _workbench,
}
"""Field of a settings class -> where its value stands, and Arvados' own default where ours is
another (Arvados' config.default.yml)."""
