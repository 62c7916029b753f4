# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Image, units, nginx site and pages say what the commands, settings and keys say."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import click
import pytest
import yaml

from arvados_nats.cli import main
from arvados_nats.nats import server_config
from arvados_nats.postgres import arvados_tables
from arvados_nats.service import keys
from sandbox import schema
from wsproxy.log_folder import routes as log_folder

ROOT = Path(__file__).parents[2]
FILES = ROOT / "arvados_nats" / "admin" / "init" / "files"
UNITS = sorted(FILES.glob("*.service"))
SERVICES = [unit for unit in UNITS if unit.stem != "arvados-nats-server"]
PAGES = ("install.md", "operate.md", "threat-model.md", "workbench.md")
SECRETS = {"ARVADOS_NATS_LOG_TOKEN", "ARVADOS_NATS_POSTGRES_DSN", "ARVADOS_NATS_MANAGEMENT_TOKEN"}
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def values(unit: Path, key: str) -> list[str]:
    """All values of a key of a unit."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


def _resolves(words: list[str]) -> bool:
    command: click.Command | None = main
    for word in words:
        if not isinstance(command, click.Group):
            return False
        command = command.get_command(click.Context(command), word)
    return command is not None and not isinstance(command, click.Group)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_exists(unit: Path) -> None:
    """With the program of the documented place."""
    program, *words = values(unit, "ExecStart")[0].split()
    assert program == "/opt/arvados-nats/bin/arvados-nats"
    assert _resolves(words)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_a_unit_is_shown_its_own_secrets_only(unit: Path) -> None:
    """By systemd, under the names that the service looks for, from the documented folders; what may
    also stand in Arvados' own file is shown empty where it is missing, and the unit starts."""
    shown = dict(entry.split(":") for entry in values(unit, "LoadCredential"))
    for name, path in shown.items():
        folder = "keys" if name.endswith(".nk") else "secrets"
        assert path == f"/etc/arvados-nats/{folder}/{name}"
        assert name in SECRETS or name.partition(".")[0] in keys.ROLES
    empty = {name for name in shown if not name.endswith(".nk") or name.count(".") > 1}
    assert values(unit, "SetCredential") == [f"{name}:\\n" for name in shown if name in empty]
    told = dict(entry.split("=") for entry in values(unit, "Environment"))
    assert told["ARVADOS_NATS_KEYS_DIR"] == "/run/credentials/%n"
    assert told["ARVADOS_NATS_SECRETS_DIR"] == "/run/credentials/%n"
    assert [name for name in told if f"`{name}`" not in SETTINGS] == []


def test_every_seed_of_a_service_is_shown_to_one_unit() -> None:
    """None is left out, and none is held twice; a machine's own key goes by the same name."""
    shown = [
        entry.partition(".nk:")[0]
        for unit in SERVICES
        for entry in values(unit, "LoadCredential")
        if ".nk:" in entry and not any(f"{which}.nk:" in entry for which in keys.BESIDE)
    ]
    servers = {server_config.ROUTES}  # in their configuration
    assert sorted(shown) == sorted([*(keys.ROLES.keys() - servers), "system-logs"])


def test_a_socket_server_has_time_to_drain() -> None:
    """SIGKILL comes well after the drain."""
    unit = FILES / "arvados-nats-wsproxy.service"
    told = dict(entry.split("=") for entry in values(unit, "Environment"))
    assert int(values(unit, "TimeoutStopSec")[0]) >= int(told["ARVADOS_NATS_DRAIN_SECONDS"]) + 10


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit(unit: Path) -> None:
    """systemd-analyze knows every key; that the program is not installed here is no fault."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine")
    done = subprocess.run(
        [program, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    faults = [line for line in done.stderr.splitlines() if unit.name in line or "nvalid" in line]
    assert [line for line in faults if "is not executable" not in line] == []


def test_the_image_runs_without_privilege() -> None:
    """As a numbered user, which Kubernetes can check, with a health check and no shell around."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["arvados-nats"]' in text
    assert "/livez" in text[text.index("HEALTHCHECK") :]
    assert len(re.findall("^FROM ", text, re.MULTILINE)) == 3
    assert [
        name for name in set(re.findall(r"ARVADOS_NATS_\w+", text)) if name not in SETTINGS
    ] == []


def test_the_image_is_built_of_what_is_installed() -> None:
    """The build context holds every package of the distribution, and nothing that is not ours."""
    lines = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^packages = \[(.*)\]$", project, re.MULTILINE)
    assert packages is not None
    needed = set(re.findall(r'"(\w+)"', packages[1]))
    assert kept == needed | {"LICENSE", "README.md", "pyproject.toml", "requirements", "web"}


def test_the_role_gets_the_grants_that_the_statements_need() -> None:
    """The page says what `arvados_tables` does, line by line."""
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert "\n".join(arvados_tables.grants()) in page
    assert f"CREATE ROLE {schema.READER} " in page


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_a_page_names_exist(page: str) -> None:
    """Names change together."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = set(re.findall(r"\bARVADOS_NATS_\w+", text))
    assert [name for name in named if f"`{name}`" not in SETTINGS] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_a_page_names_exist(page: str) -> None:
    """Each `arvados-nats …` in a block of commands or between ticks."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    groups = set(main.list_commands(click.Context(main)))
    for line in re.findall(r"\barvados-nats ((?:[a-z-]+ ?)+)", text):
        words = line.split()
        if words[0] in groups:
            assert any(_resolves(words[:length]) for length in (1, 2)), line


def test_prometheus_is_told_of_every_service() -> None:
    """At the addresses of the units, and of a rule file that the packages bring."""
    page = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert block is not None
    told = yaml.safe_load(textwrap.dedent(block[1]))
    (scraped,) = told["scrape_configs"]
    listening = {
        entry.removeprefix("ARVADOS_NATS_OPS_LISTEN=")
        for unit in SERVICES
        if unit.stem != "arvados-nats-system-logs"  # on machines of their own
        for entry in values(unit, "Environment")
        if entry.startswith("ARVADOS_NATS_OPS_LISTEN=")
    }
    assert set(scraped["static_configs"][0]["targets"]) == listening
    packaged = (ROOT / "packaging" / "nfpm.yaml").read_text(encoding="utf-8")
    assert all(f"dst: {path}}}" in packaged for path in told["rule_files"])


def test_the_nginx_site_hands_on_what_sockets_need() -> None:
    """The upgrade, who the client is, and server-sent events at once."""
    text = (FILES / "nginx.conf").read_text(encoding="utf-8")
    assert text.count("{") == text.count("}")
    for line in (
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_buffering off;",
    ):
        assert line in text
    logged = text[text.index("log_format") : text.index("server {")]
    assert not {"$request ", "$request_uri", "$args", "$query_string"} & set(logged.split())


def test_the_script_for_workbench_is_put_in_as_the_page_says() -> None:
    """By the same lines in the snippet and in the guide, which name the file that is served."""
    snippet = (FILES / "workbench.conf").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "workbench.md").read_text(encoding="utf-8")
    lines = [line for line in snippet.splitlines() if line.startswith("sub_filter")]
    assert len(lines) == 2
    assert all(line in page for line in lines)
    assert "location = /workbench.js {" in snippet


def test_the_controllers_lines_fall_back_to_it() -> None:
    """On the status that leaves a question to it, and where wsproxy does not answer; the guide has
    the same lines."""
    text = (FILES / "controller-logs.conf").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "workbench.md").read_text(encoding="utf-8")
    for start in ("location ~", "    error_page ", "    proxy_intercept_errors "):
        (line,) = [line for line in text.splitlines() if line.startswith(start)]
        assert line in page
    assert str(log_folder.LEFT) in text
