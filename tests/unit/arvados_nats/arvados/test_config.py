# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A site's config.yml is read as it is written: each setting where a service looks for it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from arvados_nats.arvados import config as arvados_config
from arvados_nats.errors import BadInput, ConfigError
from arvados_nats.service import process
from publishers.settings import Settings as PublisherSettings
from tests.unit.arvados_nats.admin.test_check_config import OTHER, ROOT_TOKEN, SITE
from wsproxy.settings import Settings as ProxySettings


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (SITE.replace("    PostgreSQL:", "\t  PostgreSQL:"), 5, "character"),
        (SITE.replace('"x:y"}', '"x:y"'), 7, "expected"),
        (SITE.replace("MaxDeleteBatch", "MaxAge"), 19, "MaxAge is written twice"),
        (SITE + SITE.partition("\n")[2], 22, "xurid is written twice"),
        ("Cluster: {}\n", 1, "no map `Clusters`"),
        ("# nothing\n", 1, "no map `Clusters`"),
        ("Clusters: [xurid]\n", 1, "no map `Clusters`"),
    ],
)
def test_a_broken_file_gives_line_and_reason(text: str, line: int, reason: str) -> None:
    """What an editor can jump to."""
    with pytest.raises(BadInput, match=reason) as error:
        arvados_config.parse(text)
    assert str(error.value).startswith(f"line {line}: ")


LEGACY = """\
Client:
  APIHost: example.com
  AuthToken: tokenthatmustneverbeprinted
Postgres: {dbname: arvados_production, host: localhost, password: xyzzy}
PostgresPool: 63
Listen: ":8765"
LogLevel: debug
LogFormat: text
PingTimeout: 61s
ClientEventQueue: 62
ServerEventQueue: 5
ManagementToken: qqqqq
"""


def test_load_legacy_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of arvados-ws from before Arvados 1.4 is named as one, with what to give instead;
    nothing of it is shown."""
    path = tmp_path / "ws.yml"
    path.write_text(LEGACY)
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CONFIG", str(path))
    with pytest.raises(
        ConfigError, match=r"ws\.yml: .* before Arvados 1\.4\. Give .*config\.yml"
    ) as e:
        process.load(ProxySettings)
    assert "mustneverbeprinted" not in str(e.value) and "xyzzy" not in str(e.value)


MORE = (
    SITE
    + """\
    API:
      SendTimeout: 90s
    TLS:
      Insecure: true
    Users:
      RoleGroupsVisibleToAll: false
"""
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file, and an environment that has it and nothing else."""
    path = tmp_path / "config.yml"
    path.write_text(MORE)
    for name in ("ARVADOS_API_HOST", "ARVADOS_MANAGEMENT_TOKEN", "ARVADOS_NATS_POSTGRES_DSN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CONFIG", str(path))
    return path


def test_services_take_what_arvados_has_already(config: Path) -> None:
    """Each its own part: where the API and the database are, tokens, and how Arvados is set."""
    publishers = process.load(PublisherSettings)
    assert publishers.arvados_url == "https://xurid.example.com"
    assert publishers.arvados_api_host_insecure
    assert publishers.postgres_dsn.get_secret_value() == (
        "host='localhost' port='5432' dbname='arvados' user='arvados' password='x:y'"
    )
    assert publishers.log_token.get_secret_value() == ROOT_TOKEN
    assert publishers.management_secret() == "managementtokenthatmustneverbeprinted"
    assert publishers.role_groups_visible_to_all is False
    assert process.load(ProxySettings).send_timeout == 90
    assert "mustneverbeprinted" not in repr(publishers)


def test_the_environment_comes_first(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under whichever of its names a setting is given."""
    monkeypatch.setenv("ARVADOS_API_HOST", "elsewhere.example.com")
    monkeypatch.setenv("ARVADOS_MANAGEMENT_TOKEN", "other")
    monkeypatch.setenv("ARVADOS_NATS_POSTGRES_DSN", "host=x")
    found = process.load(PublisherSettings)
    assert found.arvados_url == "https://elsewhere.example.com"
    assert found.management_secret() == "other"
    assert found.postgres_dsn.get_secret_value() == "host=x"


def test_secrets_with_quotes_arrive_whole(config: Path) -> None:
    """libpq's own quoting."""
    config.write_text(MORE.replace('"x:y"', r"""'it''s \\ so'"""))
    dsn = process.load(PublisherSettings).postgres_dsn.get_secret_value()
    assert r"password='it\'s \\\\ so'" in dsn


def test_one_of_several_clusters_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the error says which there are."""
    config.write_text(SITE + OTHER)
    with pytest.raises(ConfigError, match=r"name one of its clusters \(xurid, yurid\)"):
        process.load(PublisherSettings)
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "yurid")
    assert process.load(PublisherSettings).arvados_url == "https://yurid.example.com"
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "zurid")
    with pytest.raises(ConfigError, match=r"\(xurid, yurid\), not zurid"):
        process.load(PublisherSettings)


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("SendTimeout: 90s", "SendTimeout: 90", "line 23: xurid.API.SendTimeout: it is no dur"),
        ("Insecure: true", "Insecure: maybe", "line 25: xurid.TLS.Insecure: it is neither"),
        ("https://xurid.example.com", "xurid", "line 9: xurid.Services.Controller.ExternalURL"),
        ("    TLS:", "\t TLS:", "line 24: found character"),
    ],
)
def test_a_wrong_value_gives_line_and_reason(
    config: Path, was: str, becomes: str, told: str
) -> None:
    """And the file, but not the value."""
    config.write_text(MORE.replace(was, becomes))
    with pytest.raises(ConfigError) as error:
        process.load(ProxySettings)
    assert str(error.value).startswith(f"arvados_config: {config}: {told}")


@pytest.mark.parametrize(
    ("text", "insecure"), [("yes", True), ("On", True), ("no", False), ("off", False)]
)
def test_a_flag_is_read_as_arvados_reads_it(config: Path, text: str, insecure: bool) -> None:
    """YAML 1.1 has more words than two."""
    config.write_text(MORE.replace("Insecure: true", f"Insecure: {text}"))
    assert process.load(PublisherSettings).arvados_api_host_insecure is insecure


def test_the_login_is_read_whatever_its_case(config: Path) -> None:
    """Arvados makes the names small before it gives them to libpq."""
    config.write_text(MORE.replace("{host:", "{Host:").replace("dbname:", "DBName:"))
    dsn = process.load(PublisherSettings).postgres_dsn.get_secret_value()
    assert dsn.startswith("host='localhost' port='5432' dbname='arvados' ")


def test_maps_that_are_merged_are_read(config: Path) -> None:
    """What is said beside `<<` goes before it, and the first of several before the others."""
    config.write_text(
        "a: &a {ManagementToken: of-a, SystemRootToken: of-a}\n"
        "b: &b {ManagementToken: of-b, TLS: {Insecure: true}}\n"
        "Clusters: {xurid: {<<: [*a, *b], SystemRootToken: own}}\n"
    )
    found = process.load(PublisherSettings)
    assert found.log_token.get_secret_value() == "own"
    assert found.management_secret() == "of-a"
    assert found.arvados_api_host_insecure


def test_maps_that_are_merged_without_end_are_refused() -> None:
    """Into themselves, or by thousands."""
    with pytest.raises(BadInput, match="line 1: more than 3 maps are merged"):
        arvados_config.parse("Clusters: &a {<<: *a}\n")
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    with pytest.raises(BadInput, match="more than 3 maps are merged"):
        arvados_config.parse("\n".join([*lines, "Clusters: {<<: *a8}", ""]))


def test_a_file_that_is_not_there(config: Path) -> None:
    """Is told as well: somebody has asked for it."""
    config.unlink()
    with pytest.raises(ConfigError, match="it cannot be read: No such file"):
        process.load(ProxySettings)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("336h", 1_209_600), ("1h30m", 5400), ("1.5h", 5400), ("100ms", 0.1)],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    """With units, several of them, and fractions."""
    assert arvados_config.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "1", "1d", "h", "1 h", "-1h"])
def test_what_is_no_duration_is_none(text: str) -> None:
    """Arvados would not start with it."""
    assert arvados_config.duration(text) is None
