# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What systemd would start of a unit of ours: the program, its environment, its credentials.

Reads what our units use of systemd's language, drop-ins included, and refuses what it does not
know: `doctor` sees what the services see, and a test starts the units as they are written.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arvados_nats.errors import BadInput

FOLDERS = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"))
"""Where systemd looks for units, the first that has one wins."""
CREDENTIALS = Path("/run/credentials")
_SECTION = re.compile(r"\[(\w+)\]")
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


@dataclass(slots=True)
class Unit:
    """One service, as it is written on this machine."""

    name: str
    program: list[str] = field(default_factory=list)
    reload: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    environment_files: list[tuple[Path, bool]] = field(default_factory=list)
    """Each with whether it may be missing."""
    load: dict[str, Path] = field(default_factory=dict)
    fallback: dict[str, str] = field(default_factory=dict)
    dynamic_user: bool = False
    state: str = ""
    """Its folder below /var/lib."""

    @property
    def config(self) -> Path | None:
        """What a server reads: its credential, or the file behind `-c`."""
        after = dict(itertools.pairwise(self.program))
        if named := after.get("-c") or after.get("--config"):
            return self.load.get(Path(named).name, Path(named))
        return next(iter(self.load.values()), None)

    @property
    def shown(self) -> str:
        """Where the service finds its credentials."""
        return str(CREDENTIALS / self.name)

    def settings(self) -> dict[str, str]:
        """Its environment; OSError where a file that must be there cannot be read."""
        found = dict(self.environment)
        for path, optional in self.environment_files:
            try:
                found |= parse_environment(path.read_text("utf-8", "surrogateescape"))
            except FileNotFoundError:
                if not optional:
                    raise
        return found

    def credentials(self) -> dict[str, str | None]:
        """Name -> content as systemd would show it now; None for what keeps it from starting."""
        found: dict[str, str | None] = dict(self.fallback)
        for name, path in self.load.items():
            try:
                found[name] = path.read_bytes().decode("utf-8", errors="surrogateescape")
            except OSError:
                found.setdefault(name, None)
        return found


def find(name: str, folders: Iterable[Path] = FOLDERS) -> Unit | None:
    """The unit `name` with its drop-ins, from the first folder that has it."""
    folders = tuple(folders)
    for folder, written in itertools.product(folders, dict.fromkeys((name, _template(name)))):
        if (path := folder / written).is_file():
            texts = [path, *_drop_ins(written, folders)]
            try:
                return parse(name, (text.read_text("utf-8", "surrogateescape") for text in texts))
            except BadInput as error:
                raise BadInput(f"{path}, or a drop-in of it: {error}") from error
    return None


def _template(name: str) -> str:
    """`wsproxy@.service` of `wsproxy@3.service`."""
    return re.sub(r"@.*\.service$", "@.service", name)


def _drop_ins(name: str, folders: tuple[Path, ...]) -> list[Path]:
    stem = name.removesuffix(".service")
    parts = stem.split("-")
    near = ["-".join(parts[:count]) + "-.service.d" for count in range(1, len(parts))]
    found: dict[str, Path] = {}
    for folder in reversed(folders):
        for kind in (*near, f"{name}.d"):
            found |= {path.name: path for path in sorted((folder / kind).glob("*.conf"))}
    return [found[key] for key in sorted(found)]


def parse(name: str, texts: Iterable[str]) -> Unit:
    """The unit of these texts, the later ones said on top; `BadInput` for what is not known."""
    unit = Unit(name)
    instance = name.partition("@")[2].removesuffix(".service")
    for text in texts:
        for section, key, value in _assignments(text):
            if section == "Service":
                _apply(unit, key, _specified(value, name, instance, unit.shown))
    return unit


def _specified(value: str, name: str, instance: str, shown: str) -> str:
    return value.replace("%n", name).replace("%i", instance).replace("%d", shown)


def _assignments(text: str) -> Iterator[tuple[str, str, str]]:
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if found := _SECTION.fullmatch(line):
            section = found[1]
            continue
        key, separator, value = line.partition("=")
        if not separator:
            raise BadInput(f"no setting: {line}")
        yield section, key.strip(), value.strip()


def _apply(unit: Unit, key: str, value: str) -> None:
    if not value:
        _forget(unit, key)
        return
    match key:
        case "ExecStart":
            unit.program = value.lstrip("@-:+!").split()
        case "ExecReload":
            unit.reload = value.removeprefix("+").split()
        case "Environment":
            unit.environment |= dict(_pairs(value))
        case "EnvironmentFile":
            unit.environment_files.append((Path(value.removeprefix("-")), value.startswith("-")))
        case "LoadCredential":
            name, _, path = value.partition(":")
            unit.load[name] = Path(path)
        case "SetCredential":
            name, _, text = value.partition(":")
            unit.fallback[name] = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), text)
        case "StateDirectory":
            unit.state = value
        case "DynamicUser":
            unit.dynamic_user = value == "yes"


def _forget(unit: Unit, key: str) -> None:
    """An empty assignment takes back what was said before it."""
    match key:
        case "Environment":
            unit.environment.clear()
        case "EnvironmentFile":
            unit.environment_files.clear()
        case "LoadCredential":
            unit.load.clear()
        case "SetCredential":
            unit.fallback.clear()


def _pairs(value: str) -> Iterator[tuple[str, str]]:
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', value):
        name, _, text = (quoted or plain).partition("=")
        yield name, text


def parse_environment(text: str) -> dict[str, str]:
    """What an EnvironmentFile= says: `NAME=value` lines, quotes around a value left out."""
    found = {}
    for line in text.splitlines():
        line = line.strip()
        if line and line[0] not in "#;" and "=" in line:
            name, _, value = line.partition("=")
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            found[name.strip()] = value
    return found


def with_credentials(unit: Unit, folder: Path) -> Mapping[str, str]:
    """The unit's environment, with what it is shown laid into a folder; `OSError` as systemd."""
    for name, content in unit.credentials().items():
        if content is None:
            raise FileNotFoundError(f"{unit.load[name]} cannot be read")
        path = folder / name
        path.write_bytes(content.encode("utf-8", errors="surrogateescape"))
        path.chmod(0o400)
    return {name: value.replace(unit.shown, str(folder)) for name, value in unit.settings().items()}
