# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The services of this machine, with the settings that each of them really reads.

On a machine they come from the units, as systemd would start them; in a pod there is one, whose
environment and mounts are ours. The settings classes are the services' own, loaded by name as the
commands are.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arvados_nats.admin import unit_files
from arvados_nats.admin.doctor.finding import Finding, ok, skipped, wrong
from arvados_nats.admin.unit_files import Unit
from arvados_nats.errors import ConfigError
from arvados_nats.service import process
from arvados_nats.service.settings import Block

_INIT = "arvados-nats init"
_IN_KUBERNETES = (
    "in Kubernetes: kubectl exec -n arvados-nats deploy/arvados-nats-publishers"
    " -- arvados-nats doctor (-authcallout, -wsproxy)"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One of our services: its settings class, and the seeds that it logs in to NATS with."""

    settings: str
    logins: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Seeds that it needs for something else."""

    @property
    def seeds(self) -> tuple[str, ...]:
        return (*self.logins, *self.others)


KINDS: Mapping[str, Kind] = {
    "publishers": Kind("publishers.settings:Settings", ("publisher",)),
    "authcallout": Kind(
        "authcallout.settings:Settings", ("callout", "callout-service", "sys"), ("issuer", "xkey")
    ),
    "wsproxy": Kind("wsproxy.settings:Settings", ("wsproxy",)),
    "system-logs": Kind("publishers.system_logs.cli:SystemLogSettings", (), ("system-logs",)),
}
_OPTIONAL = {"system-logs"}
"""On the machines where somebody has enabled it, wherever a package has laid its unit."""


@dataclass(slots=True)
class Service:
    """One service as it would run now."""

    name: str
    settings: Any
    unit: Unit | None

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def restart(self) -> str:
        """The command that starts it anew."""
        if self.unit:
            return f"systemctl restart {self.unit.name.removesuffix('.service')}"
        label = f"-l app.kubernetes.io/component={self.name}"
        return f"kubectl rollout restart deployment -n arvados-nats {label}"


def unit_name(service: str) -> str:
    return f"arvados-nats-{service}.service"


def unit(service: str, folders: Iterable[Path]) -> Unit | None:
    """The unit of a service that is meant to run here."""
    folders, name = tuple(folders), unit_name(service)
    wanted = (folder / "multi-user.target.wants" / name for folder in folders)
    if service in _OPTIONAL and not any(path.is_symlink() for path in wanted):
        return None
    return unit_files.find(name, folders)


def find(
    folders: Iterable[Path], shown: Callable[[], Path], *, from_outside: bool = False
) -> tuple[list[Service], list[Finding]]:
    """The services there are, and what is wrong with how they are told what they are told.

    `shown` makes a folder of our own, to lay into it what systemd would show to a service;
    `from_outside`: something that runs elsewhere is looked at, so none of it needs to be here.
    """
    services, findings = [], []
    folders = tuple(folders)
    units = {name: unit(name, folders) for name in KINDS}
    if not any(units.values()):
        return _of_this_process(from_outside)
    for name, found in units.items():
        if found is None:
            if name not in _OPTIONAL:
                findings.append(skipped(name, f"{unit_name(name)} is not on this machine"))
            continue
        try:
            environment = unit_files.with_credentials(found, shown())
            settings = _load(name, environment)
        except FileNotFoundError as error:
            findings.append(wrong(name, f"systemd does not start it: {error}", _INIT, here=True))
        except ConfigError as error:
            findings.append(wrong(name, str(error), _mend(error), here=True))
        else:
            services.append(Service(name, settings, found))
            findings.append(ok(f"{name}: settings"))
    return services, findings


def _mend(error: ConfigError) -> str:
    text = str(error)
    if "keys_dir" in text:
        return text.rpartition(" with: ")[2] if " with: " in text else "arvados-nats keys ensure"
    return f"correct it in /etc/arvados-nats/environment (docs/settings.md), or {_INIT}"


def _of_this_process(from_outside: bool) -> tuple[list[Service], list[Finding]]:
    """In a pod, or wherever somebody has set the environment of one service."""
    folder = Path(os.environ.get("ARVADOS_NATS_KEYS_DIR", "/etc/arvados-nats/keys"))
    here = [name for name, kind in KINDS.items() if (folder / f"{kind.seeds[0]}.nk").exists()]
    if not here:
        text = f"nothing of ours is here: no unit, and no seed in {folder}"
        if from_outside:
            return [], [skipped("this machine", f"{text}; {_IN_KUBERNETES}")]
        mend = f"{_INIT}; {_IN_KUBERNETES}"
        return [], [wrong("this machine", text, mend, here=True)]
    services, findings = [], []
    for name in here:
        if name in _OPTIONAL and len(here) > 1:
            continue
        try:
            services.append(Service(name, _load(name, os.environ), None))
            findings.append(ok(f"{name}: settings"))
        except ConfigError as error:
            findings.append(wrong(name, str(error), _mend(error), here=True))
    return services, findings


def _load(name: str, environment: Mapping[str, str]) -> Any:
    """The service's own settings, seeds included; ConfigError for what it would end with."""
    settings = process.load(lambda: _made(name, environment))
    kind = KINDS[name]
    for seed in kind.seeds:
        settings.seed(seed)
    return settings


def _made(name: str, environment: Mapping[str, str]) -> Any:
    with _environment(environment):
        return settings_class(name)()


def settings_class(name: str) -> type[Block]:
    """By name: the kernel imports no service."""
    module, _, attribute = KINDS[name].settings.partition(":")
    found: type[Block] = getattr(importlib.import_module(module), attribute)
    return found


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """This process' environment as a service's, while its settings are read."""
    before, wanted = dict(os.environ), dict(wanted)  # which may be the very same
    os.environ.clear()
    os.environ.update({name: text for name, text in before.items() if "ARVADOS" not in name})
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def variables() -> set[str]:
    """The names of all settings of all services."""
    names: set[str] = set()
    for service in KINDS:
        for field, info in settings_class(service).model_fields.items():
            alias = info.validation_alias
            names |= {str(name) for name in getattr(alias, "choices", ())}
            names.add(f"ARVADOS_NATS_{field.upper()}")
    return names
