# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The ways a site writes down where its PostgreSQL is."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from arvados_nats.errors import ConfigError
from arvados_nats.postgres.dsn import as_role, one_by_one, to_url
from arvados_nats.postgres.dsn import options as said_by


@pytest.mark.parametrize(
    ("dsn", "options"),
    [
        (
            "host=db.example port=5432 dbname=arvados user=reader password=secret",
            {
                "host": "db.example",
                "port": "5432",
                "dbname": "arvados",
                "user": "reader",
                "password": "secret",
            },
        ),
        ("host = db  dbname = 'a b'", {"host": "db", "dbname": "a b"}),
        (r"password='it\'s \\ here' host=db", {"password": r"it's \ here", "host": "db"}),
        (r"password=a\ b host=db", {"password": "a b", "host": "db"}),
        ("host=/run/postgresql dbname=x sslmode=disable", {"host": "/run/postgresql"}),
        ("hostaddr=10.0.0.1 host=db dbname=x", {"host": "db"}),
        ("hostaddr=10.0.0.1 dbname=x", {"host": "10.0.0.1"}),
        ("host=a,b port=1,2 dbname=x", {"host": "a,b", "port": "1,2"}),
    ],
)
def test_a_libpq_string_becomes_a_url(dsn: str, options: dict[str, str]) -> None:
    """With the same values, whatever their quoting."""
    found = {name: value[0] for name, value in parse_qs(urlsplit(to_url(dsn)).query).items()}
    assert options.items() <= found.items()


def test_what_only_libpq_understands_is_left_out() -> None:
    """The server would refuse to start a session with such parameters."""
    url = to_url("host=db connect_timeout=10 keepalives=1 client_encoding=UTF8 dbname=''")
    assert urlsplit(url).query == "host=db"


def test_a_url_stays_as_it_is() -> None:
    """Both spellings of the scheme."""
    for url in ("postgresql://u:p@h:1/d?sslmode=require", "postgres://h/d"):
        assert to_url(url) == url


@pytest.mark.parametrize("dsn", ["", "  ", "topsecret", "password='topsecret", "=topsecret x"])
def test_an_error_names_the_setting_and_not_its_value(dsn: str) -> None:
    """The string holds a password."""
    with pytest.raises(ConfigError, match="postgres_dsn") as caught:
        to_url(dsn)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "each"),
    [
        ("postgresql://u:p@one/db", ["postgresql://u:p@one/db"]),
        (
            "postgresql://u:p@one:1,two:2/db?sslmode=require",
            [
                "postgresql://u:p@one:1/db?sslmode=require&target_session_attrs=primary",
                "postgresql://u:p@two:2/db?sslmode=require&target_session_attrs=primary",
            ],
        ),
        (
            "postgresql://?host=one%2Ctwo&port=5&target_session_attrs=any",
            [
                "postgresql://?host=one&port=5&target_session_attrs=any",
                "postgresql://?host=two&port=5&target_session_attrs=any",
            ],
        ),
        (
            "postgresql://[::1]:1,[::2]:2",
            [
                "postgresql://[::1]:1?target_session_attrs=primary",
                "postgresql://[::2]:2?target_session_attrs=primary",
            ],
        ),
    ],
)
def test_several_hosts_are_tried_one_by_one(url: str, each: list[str]) -> None:
    """With what is said of all of them; the primary is meant unless another is asked for."""
    assert one_by_one(url) == each


@pytest.mark.parametrize("letter", "/?#[]@:%&+=' \\\"ü")
def test_a_password_of_any_letters_is_taken_or_refused_with_how_to_write_it(letter: str) -> None:
    """Copied into a URL as it is, it may break it: the part that follows looks like a host."""
    password = f"secret{letter}word"
    try:
        url = to_url(f"postgresql://arvados_nats:{password}@db.example.com:5432/arvados")
    except ConfigError as error:
        assert "as libpq does" in str(error)
        assert "secret" not in str(error)
        assert "word" not in str(error).replace("password", "")
    else:
        assert urlsplit(url).port == 5432
        assert said_by(url)["password"] == password
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    plain = to_url(f"host=db dbname=arvados user=arvados_nats password='{escaped}'")
    assert said_by(plain)["password"] == password
    for known in (plain, "postgresql://old:x@db/arvados"):
        assert said_by(as_role(known, "arvados_nats", password))["password"] == password
