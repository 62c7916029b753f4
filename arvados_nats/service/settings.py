# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings that more than one service has: blocks that each service's `Settings` is built from.

Read from the environment: `ARVADOS_NATS_…`, and Arvados' own names where there are any; and from a
folder of files that are named like the variables, so that a secret need be in no environment. Only
a service's `main` sees Settings; everything below it gets plain values.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.client import Arvados
from arvados_nats.arvados.config_source import ArvadosConfigSource
from arvados_nats.errors import ArvadosNatsError, BadInput, ConfigError
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import files, keys, machine_keys

logger = logging.getLogger(__name__)

DEFAULT_SECRETS_DIR = Path("/etc/arvados-nats/secrets")
_PLACE = re.compile(r"(?:[\w.*-]+|\[[\da-fA-F:.]+\])(?::(\d{1,5}))?")


def _is_place(text: str, *, port: bool) -> bool:
    found = _PLACE.fullmatch(text)
    return found is not None and (found[1] is not None or not port) and int(found[1] or 0) < 1 << 16


def _listening(text: str) -> str:
    if not _is_place(text, port=True):
        raise ValueError("it is not host:port, such as 127.0.0.1:9090 or [::1]:9090")
    return text


def _controller(text: str) -> str:
    place = re.sub("^https?://", "", text).removesuffix("/")
    if text and not _is_place(place, port=False):
        raise ValueError("it is no host name, such as xurid.example.com or xurid.example.com:443")
    return text


def _nats_servers(text: str) -> str:
    """The client library looks for the first of none for ever, and lets nobody else have a turn."""
    servers = [server.strip() for server in text.split(",") if server.strip()]
    for server in servers or [""]:
        place = re.sub("^(nats|tls|wss?)://", "", server).partition("/")[0]
        if not _is_place(place.rpartition("@")[2], port=False):
            raise ValueError("it names no NATS server, such as nats://127.0.0.1:4222")
    return text


Listening = Annotated[str, AfterValidator(_listening)]
"""Where a service listens: `host:port`."""


def _alias(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class _Secrets(SecretsSettingsSource):
    """A file that is empty is none: systemd shows a unit such a one for each that is missing."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return value or None, key, is_complex


class Block(BaseSettings):
    """What all blocks share: the prefix of their names, frozen values, no unknown defaults."""

    model_config = SettingsConfigDict(
        env_prefix="ARVADOS_NATS_", frozen=True, extra="ignore", populate_by_name=True
    )

    log_level: str = "INFO"
    """Least severe level that is logged: DEBUG, INFO, WARNING or ERROR."""

    secrets_dir: Path = DEFAULT_SECRETS_DIR
    """Folder, if it exists, of files that are named like these variables and hold their values. A
    variable of the environment comes before its file."""

    arvados_config: Path | None = None
    """Arvados' own /etc/arvados/config.yml, if it is on this machine: what is set nowhere else is
    taken from there."""

    arvados_cluster: str = ""
    """Which of the clusters in that file; needed where there are several."""

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)
    _latest: Any = PrivateAttr(None)
    _read: object = PrivateAttr(None)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._given, self._latest = given, self
        self._read = files.state(self._sources)

    @property
    def _sources(self) -> list[Path]:
        return [self.secrets_dir, *([self.arvados_config] if self.arvados_config else [])]

    def current(self) -> Self:
        """These settings as their files say them now; as before while those cannot be read.

        For secrets, which are replaced while we run. Whoever asks for another setting gets what the
        process started with.
        """
        if (state := files.state(self._sources)) != self._read:
            self._read = state
            try:
                self._latest = type(self)(**self._given)
                logger.info("secrets were read again", extra={"action": "settings.read"})
            except (ValidationError, ArvadosNatsError) as error:
                self._tell_unreadable(error)
        latest: Self = self._latest
        return latest

    def _tell_unreadable(self, error: Exception) -> None:
        if isinstance(error, ValidationError):  # its text would show the values
            named = ", ".join(str(item["loc"][0]) for item in error.errors(include_input=False))
        else:
            named = str(error)
        logger.warning(
            "secrets cannot be read again; the former ones stay",
            extra={"action": "settings.unreadable", "error": named},
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the folder of secrets, then Arvados' own file."""
        given = {**env_settings(), **init_settings()}
        sources = [init_settings, env_settings]
        folder = Path(given.get("secrets_dir") or DEFAULT_SECRETS_DIR)
        if folder.is_dir():
            sources.append(_Secrets(settings_cls, folder))
        if file := given.get("arvados_config"):
            name = str(given.get("arvados_cluster") or "")
            sources.append(ArvadosConfigSource(settings_cls, Path(file), name))
        return tuple(sources)


class NatsSettings(Block):
    """Where NATS is, and who we are there."""

    nats_url: Annotated[str, AfterValidator(_nats_servers)] = "nats://127.0.0.1:4222"
    """NATS servers, separated by commas."""

    nats_ca_file: str | None = None
    """PEM file of the authority that signed the NATS servers' certificates, if a private one."""

    keys_dir: Path = Path("/etc/arvados-nats/keys")
    """Folder with the nkey seeds that `arvados-nats keys` wrote."""

    def seed(self, name: str) -> str:
        """The seed of one of our identities, from `<keys_dir>/<name>.nk`."""
        path = self.keys_dir / f"{name}.nk"
        try:
            return str(_a_seed(path.read_text(encoding="ascii").strip()))
        except FileNotFoundError as error:
            raise ConfigError(
                f"keys_dir: {path} is not there;"
                f" create the keys with: arvados-nats keys ensure {self.keys_dir}"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"keys_dir: {path} cannot be read by this user: {error.strerror};"
                " its owner is root, and systemd shows it to the services"
            ) from error
        except (UnicodeDecodeError, BadInput) as error:
            raise ConfigError(
                f"keys_dir: {path} holds no seed: write it again from a copy, or make a new one"
                f" with: arvados-nats keys rotate {self.keys_dir} {name}"
            ) from error

    def living_seed(self, name: str) -> Callable[[], str]:
        """`seed`, to be asked for again and again: a file that cannot be read changes nothing."""
        last = self.seed(name)

        def read() -> str:
            nonlocal last
            try:
                last = self.seed(name)
            except ConfigError as error:
                logger.warning(
                    "a seed cannot be read again; the former one stays",
                    extra={"action": "settings.unreadable", "error": str(error)},
                )
            return last

        return read

    def seeds_beside(self, name: str) -> list[bytes]:
        """The next seed of an identity, and the one it had before its keys were replaced; where
        they are shown to us."""
        beside = (files.read(self.keys_dir / f"{name}{which}.nk") for which in keys.BESIDE)
        return [text for text in beside if text]

    def connect_nats(
        self, name: str, seed: str, in_turn: int = 0
    ) -> AbstractAsyncContextManager[Nats]:
        """A connection to NATS as one of our identities."""
        return nats_client.connect(
            self.nats_servers,
            name=name,
            seed=self.living_seed(seed),
            ca_file=self.nats_ca_file,
            in_turn=in_turn,
        )

    @property
    def nats_servers(self) -> list[str]:
        return [server.strip() for server in self.nats_url.split(",") if server.strip()]


def _a_seed(text: str) -> str:
    """The text itself; `BadInput` for what is neither a seed nor the key of a machine."""
    if machine_keys.named(text) is None:
        keys.parse_seed(text)
    return text


class ArvadosSettings(Block):
    """Where Arvados' API is."""

    arvados_api_host: Annotated[str, AfterValidator(_controller)] = Field(
        "", validation_alias=_alias("ARVADOS_API_HOST")
    )
    """Controller's host name and port; `https://` unless a scheme stands before it."""

    arvados_ca_file: str | None = None
    """PEM file of the authority that signed the controller's certificate, if a private one."""

    arvados_api_host_insecure: bool = Field(
        False, validation_alias=_alias("ARVADOS_API_HOST_INSECURE")
    )
    """Do not check the controller's certificate. For tests only."""

    @property
    def arvados_url(self) -> str:
        host = self.arvados_api_host
        if not host:
            raise ConfigError("ARVADOS_API_HOST: set it to the controller's host name and port")
        return host if "://" in host else f"https://{host}"

    def connect_arvados(self, **options: Any) -> AbstractAsyncContextManager[Arvados]:
        """A client of Arvados' API; `options` of `arvados.client.connect`."""
        return arvados_client.connect(
            self.arvados_url,
            ca_file=self.arvados_ca_file,
            insecure=self.arvados_api_host_insecure,
            **options,
        )


class PostgresSettings(Block):
    """Arvados' database, read only."""

    postgres_dsn: SecretStr = SecretStr("")
    """libpq connection string or URL of a read-only role (docs/install.md says which grants)."""

    def dsn(self) -> str:
        """The connection string as it is now."""
        return self.current().postgres_dsn.get_secret_value()


class OpsSettings(Block):
    """Health and metrics."""

    ops_listen: Listening = "127.0.0.1:0"
    """Address of `/_health/ping` and `/metrics`; port 0 takes a free one."""

    management_token: SecretStr | None = Field(
        None, validation_alias=_alias("ARVADOS_NATS_MANAGEMENT_TOKEN", "ARVADOS_MANAGEMENT_TOKEN")
    )
    """Arvados' ManagementToken; without it health and metrics answer 404."""

    traces_url: str = ""
    """Where an OpenTelemetry collector takes traces by OTLP over HTTP, such as
    `http://collector:4318/v1/traces`; empty: there are none. Needs the extra `otel` of the package,
    which the image has."""

    traces_share: float = Field(0.1, ge=0, le=1)
    """Share of rows, logins and replays that are traced, from 0 to 1."""

    def management_secret(self) -> str | None:
        """The ManagementToken as it is now."""
        token = self.current().management_token
        return token.get_secret_value() if token else None


def _words(value: object) -> object:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""A setting that is a list of words separated by commas."""
