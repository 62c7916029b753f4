# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where settings come from; docs/settings.md lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvados_nats.errors import ConfigError
from arvados_nats.service import process
from publishers.settings import Settings as PublisherSettings
from wsproxy.settings import Settings as ProxySettings

DSN = "host=db dbname=arvados password='two words'"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of secrets, as a Kubernetes volume lays it out: links within the folder."""
    data = tmp_path / "..data"
    data.mkdir()
    for name, value in {
        "ARVADOS_NATS_LOG_TOKEN": "v2/token/secret",
        "ARVADOS_NATS_POSTGRES_DSN": DSN,
        "ARVADOS_NATS_MANAGEMENT_TOKEN": "managed",
    }.items():
        (data / name).write_text(value + "\n")
        (tmp_path / name).symlink_to(Path("..data", name))
    monkeypatch.setenv("ARVADOS_NATS_SECRETS_DIR", str(tmp_path))
    return tmp_path


def test_secrets_are_read_from_files_named_like_the_variables(secrets: Path) -> None:
    """Also through Kubernetes' links, and without the newline at the end."""
    settings = PublisherSettings()
    assert settings.secrets_dir == secrets
    assert settings.log_token.get_secret_value() == "v2/token/secret"
    assert settings.postgres_dsn.get_secret_value() == DSN
    assert settings.management_secret() == "managed"


def test_a_variable_comes_before_its_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a process by hand can say otherwise."""
    monkeypatch.setenv("ARVADOS_NATS_MANAGEMENT_TOKEN", "mine")
    assert (secrets / "ARVADOS_NATS_MANAGEMENT_TOKEN").exists()
    assert ProxySettings().management_secret() == "mine"


def test_a_folder_that_is_not_there_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most machines have none."""
    monkeypatch.setenv("ARVADOS_NATS_SECRETS_DIR", str(tmp_path / "absent"))
    assert ProxySettings().management_secret() is None


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *(
            ("ARVADOS_NATS_OPS_LISTEN", text)
            for text in ("9090", ":9090", "a:b", "::1:9", "a:70000")
        ),
        *(
            ("ARVADOS_NATS_LISTEN", text)
            for text in ("", "0.0.0.0", "http://a:80", "a:8000 # ours")
        ),
        *(
            ("ARVADOS_NATS_NATS_URL", text)
            for text in ("", "nats://", "http://a:4222", "a b", ",", "nats://a:x", "//a")
        ),
        *(
            ("ARVADOS_API_HOST", text)
            for text in (
                "x:44x",
                "x:70000",
                "x # ours",
                "https://",
                "ftp://x",
                "https://x/y",
                "[::",
            )
        ),
    ],
)
def test_an_address_that_is_none_is_named(
    secrets: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    """At the start, instead of a traceback where it is used."""
    monkeypatch.setenv(variable, text)
    field = variable if "NATS" not in variable else variable.removeprefix("ARVADOS_NATS_").lower()
    with pytest.raises(ConfigError, match=rf"^{field}: .*, such as "):
        process.load(ProxySettings)


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("TRUSTED_PROXIES", "127.0.0.1;10.0.0.0/8", "does not appear to be"),
        ("TRUSTED_PROXIES", "127.0.0.1, gateway", "'gateway' does not appear to be"),
        ("ALLOWED_ORIGINS", "workbench.example", "workbench.example is no origin, such as"),
        ("ALLOWED_ORIGINS", "https://a.example,https://b.example/page", "page is no origin"),
    ],
)
def test_what_would_be_passed_over_in_silence_is_named(
    secrets: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, told: str
) -> None:
    """All clients would seem to be one, or a page would be refused without a word."""
    monkeypatch.setenv(f"ARVADOS_NATS_{variable}", text)
    with pytest.raises(ConfigError, match=rf"{variable.lower()}: .*{told}"):
        process.load(ProxySettings)
    monkeypatch.setenv("ARVADOS_NATS_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8,::1")
    monkeypatch.setenv("ARVADOS_NATS_ALLOWED_ORIGINS", "*,https://Workbench.example:8443/")
    assert process.load(ProxySettings).allowed_origins == ("*", "https://Workbench.example:8443")


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        ("*:0", "xurid.example.com"),
        ("0.0.0.0:8000", "https://xurid.example.com:443/"),
        ("[::]:8000", "http://[::1]:80"),
        ("[::1]:8000", "müller.example"),
        ("name-1:8000", ""),
    ],
)
def test_an_address_is_taken_as_people_write_it(
    secrets: Path, monkeypatch: pytest.MonkeyPatch, listen: str, host: str
) -> None:
    """Names and numbers, of IPv6 too."""
    monkeypatch.setenv("ARVADOS_NATS_LISTEN", listen)
    monkeypatch.setenv("ARVADOS_API_HOST", host)
    found = process.load(ProxySettings)
    assert (found.listen, found.arvados_api_host) == (listen, host)


def test_no_secret_is_shown(secrets: Path) -> None:
    """A settings object in a traceback or a log tells nothing."""
    assert secrets.is_dir()
    shown = repr(PublisherSettings())
    assert not [word for word in ("v2/token", "two words", "managed") if word in shown]
