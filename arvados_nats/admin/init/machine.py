# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a machine needs to run all of it, as files: pure but for the texts that come with us."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from arvados_nats.admin.init.answers import Answers
from arvados_nats.admin.init.written import File
from arvados_nats.nats import server_config
from arvados_nats.postgres import arvados_tables
from arvados_nats.service import keys
from arvados_nats.service.keys import Seed

FOLDER = Path("/etc/arvados-nats")
UNITS = (
    "arvados-nats-server.service",
    "arvados-nats-publishers.service",
    "arvados-nats-authcallout.service",
    "arvados-nats-wsproxy.service",
)
"""In the order in which they are started."""
_PROGRAMS = "/opt/arvados-nats/bin"
STORE = Path("/var/lib/arvados-nats-server")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the files go, and where the programs are."""

    folder: Path = FOLDER
    units: Path | None = Path("/etc/systemd/system")
    """None: a package brings them."""
    programs: Path = Path(_PROGRAMS)
    store: Path = STORE

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def dsn(self) -> Path:
        return self.secrets / "ARVADOS_NATS_POSTGRES_DSN"


@dataclass(frozen=True, slots=True)
class Site:
    """The public address of wsproxy, and nginx' certificate for it."""

    host: str
    certificate: str
    key: str


def text(name: str) -> str:
    """A file of ours as it comes with the package."""
    return (resources.files(__package__) / "files" / name).read_text(encoding="utf-8")


def files(
    answers: Answers, seeds: Mapping[str, Seed], places: Places, site: Site | None = None
) -> Iterator[File]:
    """All of them; `seeds` are new, by role: those that are there already stay as they are."""
    for name, seed in seeds.items():
        yield File(places.keys / f"{name}.nk", f"{seed.text}\n", 0o600, (seed.text,))
        yield File(places.keys / f"{name}.pub", f"{seed.public}\n")
    yield _role(answers, places)
    for path, secret in (
        (places.dsn, answers.dsn),
        (places.secrets / "ARVADOS_NATS_LOG_TOKEN", answers.log_token),
        (places.secrets / "ARVADOS_NATS_MANAGEMENT_TOKEN", answers.management_token),
    ):
        yield File(path, f"{secret}\n", 0o600, (secret,))
    yield File(places.folder / "environment", _environment(answers))
    there = keys.load_all_public(places.keys) if len(seeds) < len(keys.ALL) else {}
    public = {**there, **{name: seed.public for name, seed in seeds.items()}}
    server = server_config.Server("nats-1", store_dir=str(places.store))
    yield File(places.folder / "nats.conf", server_config.text(server, public), 0o600)
    if places.units:
        for name in UNITS:
            yield File(places.units / name, _unit(name, places))
    if site:
        yield File(places.folder / "nginx.conf", _nginx(site))
        for name in ("workbench.conf", "controller-logs.conf"):
            yield File(places.folder / name, _named(name, site))


def role_sql(role: str, password: str) -> str:
    """What makes the role, or gives one that is there its password and what it lacks."""
    quoted = password.replace("'", "''")
    return "\n".join(
        (
            f"SELECT 'CREATE ROLE {role}' WHERE NOT EXISTS",
            f"    (SELECT FROM pg_roles WHERE rolname = '{role}') \\gexec",
            f"ALTER ROLE {role} LOGIN PASSWORD '{quoted}';",
            *arvados_tables.grants(role),
            "",
        )
    )


def _role(answers: Answers, places: Places) -> File:
    sql = role_sql(arvados_tables.ROLE, answers.password)
    return File(places.folder / "role.sql", sql, 0o600, (answers.password,))


def _environment(answers: Answers) -> str:
    settings = {
        "ARVADOS_API_HOST": answers.api_host,
        "ARVADOS_NATS_NATS_URL": "nats://127.0.0.1:4222",
        **answers.more,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _unit(name: str, places: Places) -> str:
    found = text(name).replace(_PROGRAMS, str(places.programs))
    return re.sub(rf"{FOLDER}(?=/)", str(places.folder), found)


def _named(name: str, site: Site) -> str:
    return text(name).replace("ws.xurid.example.com", site.host)


def _nginx(site: Site) -> str:
    found = _named("nginx.conf", site)
    found = found.replace("/etc/arvados/ssl/ws.crt", site.certificate)
    return found.replace("/etc/arvados/ssl/ws.key", site.key)
