# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats check config`: a site's config.yml, good, doubtful and broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from arvados_nats.admin import check_config
from arvados_nats.arvados import config as arvados_config
from arvados_nats.cli import main
from arvados_nats.errors import BadInput

ROOT_TOKEN = "systemroottokenthatmustneverbeprinted"
SITE = f"""\
Clusters:
  xurid:
    SystemRootToken: {ROOT_TOKEN}
    ManagementToken: managementtokenthatmustneverbeprinted
    PostgreSQL:
      Connection: {{host: localhost, port: "5432", dbname: arvados, user: arvados, password: "x:y"}}
    Services:
      Controller:
        ExternalURL: https://xurid.example.com
        InternalURLs:
          "http://localhost:8003": {{}}
      Websocket:
        ExternalURL: wss://ws.xurid.example.com/websocket
        InternalURLs:
          "http://localhost:8005": {{}}
          "http://10.0.0.2:8005": {{ListenURL: "http://0.0.0.0:8005"}}
    AuditLogs:
      MaxAge: 336h
      MaxDeleteBatch: 0
    RemoteClusters:
      "*": {{Proxy: false}}
"""
OTHER = SITE.partition("\n")[2].replace("xurid", "yurid")


def wrong(text: str) -> list[str]:
    """What is found in the first cluster, as lines."""
    return [
        str(found)
        for found in next(iter(check_config.examine(arvados_config.parse(text)).values()))
    ]


def test_a_site_as_the_guide_writes_it_is_ok() -> None:
    """Several clusters, secrets, InternalURLs with ListenURL, flow style and quotes."""
    assert check_config.examine(arvados_config.parse(SITE + OTHER)) == {"xurid": [], "yurid": []}


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("ws.xurid.example.com/websocket", "ws.xurid.example.com", "it has no path"),
        ("ws.xurid.example.com/websocket", "ws.xurid.example.com/", "it has no path"),
        ("com/websocket\n", "com/websocket/\n", "its path is /websocket/"),
        ("com/websocket\n", "com/ws\n", "its path is /ws"),
        ("wss://ws.", "https://ws.", "it begins with https://, and must with wss://"),
        ("wss://ws.", "ws://ws.", "may not open it"),
        ("wss://ws.xurid.example.com/", "wss:///", "it names no host"),
        ("wss://ws.xurid.example.com/websocket", '""', "no client looks for events"),
        ("wss://ws.xurid.example.com/websocket", "", "no client looks for events"),
    ],
)
def test_an_address_that_no_client_can_use_is_told(was: str, becomes: str, told: str) -> None:
    """With its line: 13 in this file."""
    (found,) = wrong(SITE.replace(was, becomes))
    assert found.startswith("line 13: xurid.Services.Websocket.ExternalURL: ")
    assert told in found


@pytest.mark.parametrize(
    ("age", "batch", "told"),
    [
        ("0", "1000", "switches audit logs off"),
        ("0s", "1000", "switches audit logs off"),
        ("2m", "1000", "rows are deleted within 5 minutes"),
        ("two weeks", "0", "it is no duration"),
        ("0", "0", None),
        ("5m", "1000", None),
        ("1h30m", "1000", None),
    ],
)
def test_audit_logs_that_are_off_are_told(age: str, batch: str, told: str | None) -> None:
    """0 means for ever, unless rows are deleted in batches: then it means never written."""
    found = wrong(SITE.replace("336h", age).replace("Batch: 0", f"Batch: {batch}"))
    assert len(found) == (told is not None)
    assert told is None or told in found[0]
    assert not found or found[0].startswith("line 18: xurid.AuditLogs.MaxAge: ")


def test_a_service_that_is_absent_is_told_at_the_nearest_line() -> None:
    """No line is invented for what is not written."""
    text = "Clusters:\n  xurid:\n    Services:\n      Controller: {ExternalURL: https://x}\n"
    found = wrong(text)
    assert found[0].startswith("line 4: xurid.Services.Websocket.ExternalURL: it is not set")
    assert [line.split(": ")[1] for line in found[1:]] == [
        "xurid.SystemRootToken",
        "xurid.ManagementToken",
    ]


def test_a_pooler_is_told() -> None:
    """Nobody can LISTEN through one in transaction mode."""
    (found,) = wrong(SITE.replace('"5432"', "6432"))
    assert "port of a pooler" in found


def test_settings_that_are_no_map_are_told() -> None:
    """Also a cluster's name that is none."""
    assert wrong("Clusters:\n  Example:\n") == [
        "line 2: Example: a cluster's name has five lower-case letters or digits",
        "line 2: Example: this is no map of settings",
    ]


@pytest.mark.parametrize(
    ("content", "code"),
    [(SITE, 0), (SITE.replace("wss:", "https:"), 1), ("Clusters: [", 2), ("\x00", 2)],
)
def test_the_command_says_all_and_shows_no_secret(tmp_path: Path, content: str, code: int) -> None:
    """0 for well, 1 for findings, 2 for a file that cannot be read."""
    path = tmp_path / "config.yml"
    path.write_text(content)
    result = CliRunner().invoke(main, ["check", "config", str(path)])
    assert result.exit_code == code, result.output
    assert result.output
    assert "mustneverbeprinted" not in result.output


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    """A file in another encoding."""
    path = tmp_path / "config.yml"
    path.write_bytes(b"Clusters: \xff")
    with pytest.raises(BadInput, match="byte 10"):
        check_config.check(path)
