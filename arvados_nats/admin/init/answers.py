# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What `init` has to know of a site: from Arvados' config.yml, the environment, or a person.

Read as the services read their settings, but past the secrets that an earlier `init` has written:
what Arvados' own file says today is what counts.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from pydantic import SecretStr

from arvados_nats import trust
from arvados_nats.admin.settings import Settings as SiteSettings
from arvados_nats.arvados import config as arvados_config
from arvados_nats.errors import ArvadosNatsError, ConfigError
from arvados_nats.postgres import arvados_tables
from arvados_nats.postgres import dsn as postgres_dsn
from arvados_nats.service import process
from arvados_nats.service.settings import CommaSeparated, OpsSettings

SITE_FILE = Path("/etc/arvados/config.yml")
_NOWHERE = Path(os.devnull)


class Settings(SiteSettings, OpsSettings):
    """Also what wsproxy and the publishers take from Arvados' own file."""

    role_groups_visible_to_all: bool | None = None
    send_timeout: float | None = None
    allowed_origins: CommaSeparated = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """All of a site that is written down. Passwords and tokens are in no repr."""

    api_host: str
    database: str
    dsn: str = field(repr=False)
    password: str = field(repr=False)
    log_token: str = field(repr=False)
    management_token: str = field(repr=False)
    more: dict[str, str] = field(default_factory=dict)
    """Further settings, by the name of their variable."""


def read(known: Path, dsn: Callable[[str], str] = str.strip) -> Answers:
    """Ask for what is set nowhere; `known` is what an earlier run wrote, and `dsn` finds our login
    in it, whose password stays."""
    settings = _settings()
    url = postgres_dsn.to_url(
        _secret(settings.postgres_dsn, "ARVADOS_NATS_POSTGRES_DSN", "Arvados' database, as libpq")
    )
    password = _password(known, dsn) or secrets.token_urlsafe(24)
    return Answers(
        api_host=settings.arvados_api_host or _ask("ARVADOS_API_HOST", "Arvados' API host"),
        database=postgres_dsn.options(url).get("dbname", "arvados_production"),
        dsn=postgres_dsn.as_role(url, arvados_tables.ROLE, password),
        password=password,
        log_token=_secret(settings.log_token, "ARVADOS_NATS_LOG_TOKEN", "SystemRootToken"),
        management_token=_secret(
            settings.management_token, "ARVADOS_NATS_MANAGEMENT_TOKEN", "ManagementToken"
        ),
        more=dict(_more(settings)),
    )


def _password(known: Path, dsn: Callable[[str], str]) -> str:
    try:
        found = dsn(known.read_text(encoding="utf-8"))
        return postgres_dsn.options(postgres_dsn.to_url(found)).get("password", "") if found else ""
    except FileNotFoundError:
        return ""
    except (ValueError, ArvadosNatsError) as error:
        reason = "it holds no login of ours any more: correct it, or move it away for a new one"
        raise ConfigError(f"{known}: {reason}") from error


def cluster() -> str:
    """The cluster's five characters: of Arvados' own file, or asked for."""
    settings = _settings()
    if settings.arvados_config is None:
        return settings.arvados_cluster or _ask("ARVADOS_NATS_ARVADOS_CLUSTER", "Cluster id")
    clusters = arvados_config.read(settings.arvados_config)
    return arvados_config.choose(clusters, settings.arvados_cluster).name


def _settings() -> Settings:
    """With Arvados' own file where it usually is, unless another is named."""
    found = process.load(lambda: Settings(secrets_dir=_NOWHERE))
    if found.arvados_config or not os.path.exists(SITE_FILE):
        return found
    return process.load(lambda: Settings(secrets_dir=_NOWHERE, arvados_config=SITE_FILE))


def _more(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is written only where the site says it."""
    if settings.arvados_ca_file:
        trust.authority(settings.arvados_ca_file)
        yield "ARVADOS_NATS_ARVADOS_CA_FILE", settings.arvados_ca_file
    if settings.arvados_api_host_insecure:
        yield "ARVADOS_API_HOST_INSECURE", "true"
    if settings.role_groups_visible_to_all is not None:
        visible = str(settings.role_groups_visible_to_all).lower()
        yield "ARVADOS_NATS_ROLE_GROUPS_VISIBLE_TO_ALL", visible
    if settings.send_timeout:
        yield "ARVADOS_NATS_SEND_TIMEOUT", f"{settings.send_timeout:g}"
    if settings.allowed_origins:
        yield "ARVADOS_NATS_ALLOWED_ORIGINS", ",".join(settings.allowed_origins)


def _secret(value: SecretStr | None, variable: str, asked: str) -> str:
    return (value.get_secret_value() if value else "") or _ask(variable, asked, hide=True)


def _ask(variable: str, asked: str, *, hide: bool = False) -> str:
    if not sys.stdin.isatty():
        raise ConfigError(f"{variable}: set it, or give an --arvados-config FILE that says it")
    answer: str = click.prompt(asked, hide_input=hide)
    return answer
