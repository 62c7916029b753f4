# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where settings come from; docs/settings.md lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_no_secret_is_shown(secrets: Path) -> None:
    """A settings object in a traceback or a log tells nothing."""
    assert secrets.is_dir()
    shown = repr(PublisherSettings())
    assert not [word for word in ("v2/token", "two words", "managed") if word in shown]
