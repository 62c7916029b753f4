# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Host and token are found where Arvados' own tools find them."""

from __future__ import annotations

import ssl
from pathlib import Path

import arvados.config  # type: ignore[import-untyped]
import pytest
from arvados._internal import basedirs  # type: ignore[import-untyped]
from arvados.util import ca_certs_path  # type: ignore[import-untyped]

from arvados_nats.client.errors import why_not_open
from arvados_nats.commands import arvados_settings
from arvados_nats.errors import ConfigError

CONF = """
# a comment
ARVADOS_API_HOST=from.file.example
  # another
ARVADOS_API_TOKEN=v2/zzzzz-gj3su-000000000000001/secretoffile
ARVADOS_API_HOST_INSECURE=true
"""
GIVEN = {"ARVADOS_API_HOST": "host.example", "ARVADOS_API_TOKEN": "secret"}


def write(folder: Path, text: str = CONF) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.conf").write_text(text)
    return folder


@pytest.mark.parametrize("place", ["home", "xdg", "xdg_dirs", "systemd", "environment", "both"])
def test_same_as_the_python_sdk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Each place counts for us as it does for arvados.config, the environment first."""
    environment = {"HOME": str(tmp_path / "home")}
    match place:
        case "home" | "both":
            write(tmp_path / "home/.config/arvados")
        case "xdg":
            environment["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
            write(tmp_path / "xdg/arvados")
        case "xdg_dirs":
            environment["XDG_CONFIG_DIRS"] = f"relative:{tmp_path}/none:{tmp_path}/dirs"
            write(tmp_path / "dirs/arvados")
        case "systemd":
            environment["CONFIGURATION_DIRECTORY"] = str(write(tmp_path / "systemd"))
            write(tmp_path / "home/.config/arvados", "ARVADOS_API_HOST=not.this.example\n")
    if place in ("environment", "both"):
        environment |= GIVEN
    for name in ("XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    for name in (*GIVEN, "ARVADOS_API_HOST_INSECURE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(arvados.config, "_settings", None)
    arvados.config.initialize(basedirs.BaseDirectories("CONFIG", environment).search)

    found = arvados_settings.read(environment)

    assert found.host == arvados.config.get("ARVADOS_API_HOST")
    assert found.token.secret == arvados.config.get("ARVADOS_API_TOKEN")
    assert found.insecure == arvados.config.flag_is_true("ARVADOS_API_HOST_INSECURE")
    assert found.ca_file == ca_certs_path(None)


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    """The error says which setting, and where it may stand."""
    given = {name: value for name, value in GIVEN.items() if name != missing}
    with pytest.raises(ConfigError, match=rf"{missing} is not set.*settings\.conf"):
        arvados_settings.read({"HOME": str(tmp_path), "XDG_CONFIG_DIRS": "/none", **given})


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    """A settings file that is there and cannot be read is no silent nothing."""
    (write(tmp_path / ".config/arvados") / "settings.conf").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"settings\.conf"):
        arvados_settings.read({"HOME": str(tmp_path), "XDG_CONFIG_DIRS": "/none"})


def test_ssl_cert_file_is_honoured(tmp_path: Path) -> None:
    """A private authority is named as for every Arvados tool; one that is not there is passed."""
    authority = tmp_path / "authority.pem"
    authority.write_text("")
    found = arvados_settings.read({**GIVEN, "SSL_CERT_FILE": str(authority)})
    assert found.ca_file == str(authority)
    found = arvados_settings.read({**GIVEN, "SSL_CERT_FILE": str(tmp_path / "none.pem")})
    assert found.ca_file != str(tmp_path / "none.pem")


def test_a_certificate_that_is_not_trusted_names_the_way_out() -> None:
    """Both servers' errors say which variable names certificates."""
    broken = ssl.SSLCertVerificationError("certificate verify failed")
    broken.verify_message = "self-signed certificate"
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        why_not_open(broken, first=True)


def test_insecure_trusts_any_certificate() -> None:
    """ARVADOS_API_HOST_INSECURE means the proxy too."""
    assert arvados_settings.read(GIVEN).ssl_context().check_hostname
    insecure = arvados_settings.read({**GIVEN, "ARVADOS_API_HOST_INSECURE": "1"})
    assert not insecure.ssl_context().check_hostname


def test_token_is_not_shown() -> None:
    """The settings can be logged."""
    assert "secret" not in repr(arvados_settings.read(GIVEN))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("wss://ws.example/websocket", "wss://ws.example/v1/stream"),
        ("wss://ws.example:8900/arvados/websocket/", "wss://ws.example:8900/arvados/v1/stream"),
        ("ws://127.0.0.1:8005", "ws://127.0.0.1:8005/v1/stream"),
        ("https://ws.example/", "wss://ws.example/v1/stream"),
        ("http://127.0.0.1:1/v1/stream", "ws://127.0.0.1:1/v1/stream"),
        ("ws.example", "wss://ws.example/v1/stream"),
        ("wss://[::1]:8005/websocket?api_token=x", "wss://[::1]:8005/v1/stream"),
    ],
)
def test_stream_is_beside_the_websocket(url: str, found: str) -> None:
    """From what the cluster or a person names to the address of protocol v1."""
    assert arvados_settings.at_stream(url) == found


@pytest.mark.parametrize("url", ["ftp://ws.example", "wss://", "https:///websocket"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """And it is shown."""
    with pytest.raises(ConfigError, match="not the address"):
        arvados_settings.at_stream(url)
