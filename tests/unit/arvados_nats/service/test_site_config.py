# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A whole config.yml of a site with two clusters: every service finds its part, nobody shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from arvados_nats.admin.settings import Settings as CheckSettings
from arvados_nats.cli import main
from arvados_nats.errors import ConfigError
from arvados_nats.postgres.dsn import to_url
from arvados_nats.service import process
from authcallout.settings import Settings as CalloutSettings
from publishers.settings import Settings as PublisherSettings
from wsproxy.settings import Settings as ProxySettings

SITE = Path(__file__).parents[2] / "site_config.yml"
SERVICES = (CalloutSettings, PublisherSettings, ProxySettings, CheckSettings)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without any setting, as before somebody installs us."""
    for name in tuple(os.environ):
        if name.startswith("ARVADOS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ARVADOS_NATS_SECRETS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CONFIG", str(SITE))


@pytest.mark.parametrize(
    ("name", "url", "insecure"),
    [
        ("xurid", "https://xurid.example.com", False),
        ("yurid", "https://yurid.example.com:8443", True),
    ],
)
def test_every_service_finds_its_part(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, insecure: bool
) -> None:
    """The cluster that is named, and nothing of the other."""
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", name)
    for settings in SERVICES:
        found: Any = process.load(settings)
        assert found.arvados_url == url
        assert found.arvados_api_host_insecure is insecure
        assert "secret" not in repr(found).replace("secrets_dir", "")
    publishers = process.load(PublisherSettings)
    assert publishers.log_token.get_secret_value().startswith(f"secret{name}roottoken")
    assert str(publishers.management_secret()).startswith(f"secret{name}management")


def test_the_database_is_found_as_libpq_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With quotes and backslashes in its password, and with a folder of sockets as its host."""
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "xurid")
    url = to_url(process.load(PublisherSettings).postgres_dsn.get_secret_value())
    assert "host=db.xurid.example.com" in url
    assert "password=secret+%27x%27+%5C+password" in url
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "yurid")
    url = to_url(process.load(PublisherSettings).postgres_dsn.get_secret_value())
    assert "host=%2Frun%2Fpostgresql" in url


def test_what_arvados_was_told_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence and role groups; what yurid does not say is our own default, which is Arvados'."""
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "xurid")
    assert process.load(ProxySettings).send_timeout == 45
    assert process.load(PublisherSettings).role_groups_visible_to_all is False
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "yurid")
    assert process.load(ProxySettings).send_timeout == 60
    assert process.load(PublisherSettings).role_groups_visible_to_all is True


def test_pages_of_workbench_may_connect_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file says which they are; where it does not, Arvados is asked (S16)."""
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "xurid")
    expected = ("https://workbench2.xurid.example.com", "http://wb1.xurid.example.com:8080")
    assert process.load(ProxySettings).allowed_origins == expected
    monkeypatch.setenv("ARVADOS_NATS_ALLOWED_ORIGINS", "https://other.example")
    assert process.load(ProxySettings).allowed_origins == ("https://other.example",)
    monkeypatch.delenv("ARVADOS_NATS_ALLOWED_ORIGINS")
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "yurid")
    assert process.load(ProxySettings).allowed_origins == ()


def test_files_and_the_environment_come_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A role and a token of our own are better than Arvados'."""
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "xurid")
    monkeypatch.setenv("ARVADOS_NATS_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("ARVADOS_NATS_LOG_TOKEN", "from the environment")
    (tmp_path / "ARVADOS_NATS_POSTGRES_DSN").write_text("host=from-a-file")
    (tmp_path / "ARVADOS_NATS_LOG_TOKEN").write_text("from a file")
    found = process.load(PublisherSettings)
    assert found.postgres_dsn.get_secret_value() == "host=from-a-file"
    assert found.log_token.get_secret_value() == "from the environment"
    assert str(found.management_secret()).startswith("secretxurid")


@pytest.mark.parametrize("name", ["", "zurid"])
def test_without_a_name_nobody_guesses(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The error lists the clusters that there are."""
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", name)
    for settings in SERVICES:
        with pytest.raises(ConfigError, match=r"site_config\.yml: .*\(xurid, yurid\)"):
            process.load(settings)


def check(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert "secret" not in result.output
    return result


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line sets variables; they go when the test ends."""
    for name in ("ARVADOS_NATS_ARVADOS_CONFIG", "ARVADOS_NATS_ARVADOS_CLUSTER"):
        monkeypatch.setenv(name, "")


def test_a_check_reads_the_same_file(put_back: None) -> None:
    """All of its clusters, or the one that is named at either place."""
    both = check("--arvados-config", str(SITE), "check", "config")
    assert both.exit_code == 1
    assert "xurid: ok\n" in both.output
    assert f"{SITE}: line 98: yurid.Services.Websocket.ExternalURL: it has no path" in both.output
    assert check("--cluster-id", "xurid", "check", "config", str(SITE)).output == "xurid: ok\n"
    assert check("check", "config", "--cluster-id", "xurid", str(SITE)).exit_code == 0


def test_a_check_says_which_clusters_there_are(put_back: None) -> None:
    """Exit code 2: nothing was looked at."""
    result = check("check", "config", "--cluster-id", "zurid", str(SITE))
    assert result.exit_code == 2
    assert "(xurid, yurid), not zurid" in result.output
