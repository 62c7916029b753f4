# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What nats.conf says; integration/edges/test_nats_accounts.py shows what a server makes of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from arvados_nats.cli import main
from arvados_nats.nats import accounts_config, conf_text, server_config
from arvados_nats.service import keys

PUBLIC = {name: f"<{name}>" for name in keys.ROLES}


def test_static_users_are_spread_over_the_accounts_and_skip_the_callout() -> None:
    """Each nkey user stands in one account, and in auth_users; users have none."""
    accounts = accounts_config.accounts(PUBLIC, accounts_config.AccountLimits())
    users = {
        name: [user["nkey"] for user in account.get("users", [])]
        for name, account in accounts.items()
    }
    assert users == {
        "SYS": ["<sys>"],
        "AUTH": ["<callout>"],
        "ARVADOS": ["<publisher>", "<wsproxy>", "<callout-service>"],
        "SENDERS": [],
        "USERS": [],
        "REQUESTS": [],
    }
    exempt = accounts_config.authorization(PUBLIC)["auth_callout"]["auth_users"]
    assert sorted(exempt) == sorted(user for group in users.values() for user in group)


def test_callout_is_encrypted_and_bound_to_users() -> None:
    """Issuer, xkey and the accounts whose configured users would be asked about."""
    callout = accounts_config.authorization(PUBLIC)["auth_callout"]
    assert callout["issuer"] == "<issuer>"
    assert callout["xkey"] == "<xkey>"
    assert callout["account"] == "AUTH"
    assert callout["allowed_accounts"] == ["USERS", "REQUESTS"]


def test_what_is_imported_is_what_is_exported() -> None:
    """The others import what ARVADOS exports to them; users' requests carry who asks."""
    accounts = accounts_config.accounts(PUBLIC, accounts_config.AccountLimits())
    for name in ("USERS", "REQUESTS", "SENDERS"):
        exports = [e for e in accounts["ARVADOS"]["exports"] if e["accounts"] == [name]]
        imports = accounts[name]["imports"]
        assert [{k: v for k, v in e.items() if k in ("stream", "service")} for e in exports] == [
            {kind: i[kind]["subject"] for kind in ("stream", "service") if kind in i}
            for i in imports
        ]
    assert all(i["share"] for i in accounts["REQUESTS"]["imports"])
    assert len(accounts["ARVADOS"]["exports"]) == 6


def test_who_listens_can_not_ask_and_who_asks_hears_only_answers() -> None:
    """No permission covers where an answer goes: nobody may be in one account with both."""
    accounts = accounts_config.accounts(PUBLIC, accounts_config.AccountLimits())
    kinds = {
        name: {
            kind
            for one in account.get("imports", [])
            for kind in ("stream", "service")
            if kind in one
        }
        for name, account in accounts.items()
    }
    assert kinds.pop("USERS") == {"stream"}
    assert all("stream" not in found for found in kinds.values())


def test_only_our_services_and_admins_are_clients_of_arvados() -> None:
    """Who may publish there chooses where JetStream answers: never a container or a machine."""
    accounts = accounts_config.accounts(PUBLIC, accounts_config.AccountLimits())
    assert all("permissions" not in user for user in accounts["ARVADOS"]["users"])
    assert "users" not in accounts["SENDERS"]
    assert all("service" in one for one in accounts["SENDERS"]["imports"])


def test_streams_are_kept_in_arvados_alone_and_fit_the_disk() -> None:
    """Only ARVADOS has JetStream, with less than the server's store."""
    limits = accounts_config.AccountLimits(store=conf_text.GIB)
    accounts = accounts_config.accounts(PUBLIC, limits)
    assert [name for name, account in accounts.items() if "jetstream" in account] == ["ARVADOS"]
    assert 0 < accounts["ARVADOS"]["jetstream"]["max_file"] < limits.store


def test_a_cluster_may_use_the_disks_of_all_its_copies() -> None:
    """Each copy of a stream counts against the account, so the account gets as much more."""
    one, three = (
        accounts_config.accounts(PUBLIC, accounts_config.AccountLimits(copies=copies))["ARVADOS"][
            "jetstream"
        ]
        for copies in (1, 3)
    )
    assert three["max_file"] == 3 * one["max_file"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1, "1"), (1000, "1000"), (1024, "1KB"), (3 * 1024**2, "3MB"), (2**30, "1GB")],
)
def test_sizes_are_printed_with_the_largest_unit_that_fits(size: int, text: str) -> None:
    """Exact, and short enough to read."""
    assert str(conf_text.Size(size)) == text


def test_a_single_server_writes_through_and_opens_no_other_port() -> None:
    """No routes, no WebSocket, no TLS unless asked; monitoring for this host alone."""
    settings = server_config.settings(
        server_config.Server("n"), PUBLIC, accounts_config.AccountLimits()
    )
    assert settings["jetstream"]["sync_interval"] == "always"
    assert settings["http"].startswith("127.0.0.1:")
    assert settings["listen"].startswith("127.0.0.1:")
    assert not {"cluster", "websocket", "tls", "leafnodes", "mqtt", "no_auth_user"} & set(settings)


def test_a_cluster_member_knows_the_others() -> None:
    """Routes are URLs, and clients are not told addresses they may not reach."""
    cluster = server_config.Routes("arvados", "0.0.0.0:6222", ("nats-2:6222", "nats-3:6222"))
    server = server_config.Server("nats-1", cluster=cluster)
    settings = server_config.settings(server, PUBLIC, accounts_config.AccountLimits())
    assert settings["cluster"]["routes"] == ["nats-route://nats-2:6222", "nats-route://nats-3:6222"]
    assert settings["cluster"]["no_advertise"] is True
    assert "tls" not in settings["cluster"]


def test_members_of_a_cluster_show_a_password() -> None:
    """To those that they call and to those that call them."""
    cluster = server_config.Routes("arvados", "h:1", ("nats-2:6222",), password="SUA")
    server = server_config.Server("nats-1", cluster=cluster)
    settings = server_config.settings(server, PUBLIC, accounts_config.AccountLimits())
    assert settings["cluster"]["authorization"] == {"user": "routes", "password": "SUA"}
    assert settings["cluster"]["routes"] == ["nats-route://routes:SUA@nats-2:6222"]
    assert "SUA" not in repr(server)


def test_members_of_a_cluster_can_be_made_to_show_a_certificate() -> None:
    """Whoever opens a route is trusted with everything: the authority decides who may."""
    tls = server_config.Tls("c", "k", "ca")
    cluster = server_config.Routes("arvados", "0.0.0.0:6222", (), tls)
    settings = server_config.settings(
        server_config.Server("n", cluster=cluster), PUBLIC, accounts_config.AccountLimits()
    )
    assert settings["cluster"]["tls"] == {
        "cert_file": "c",
        "key_file": "k",
        "ca_file": "ca",
        "verify": True,
    }


@pytest.mark.parametrize(
    ("websocket", "expected"),
    [
        (server_config.WebSocket("h:1"), {"no_tls": True, "same_origin": True}),
        (
            server_config.WebSocket("h:1", ("https://wb",), server_config.Tls("c", "k")),
            {"tls": {"cert_file": "c", "key_file": "k"}, "allowed_origins": ["https://wb"]},
        ),
    ],
    ids=["plain", "TLS"],
)
def test_a_websocket_listener_checks_origins(
    websocket: server_config.WebSocket, expected: dict[str, object]
) -> None:
    """Pages of other sites are refused, with or without a list of allowed ones."""
    server = server_config.Server("n", websocket=websocket)
    settings = server_config.settings(server, PUBLIC, accounts_config.AccountLimits())
    assert settings["websocket"] == {"listen": "h:1", **expected}


def test_text_is_quoted_so_that_no_value_is_read_as_another_type() -> None:
    """`12345` stays text, and quotes and backslashes stay what they are."""
    text = server_config.text(server_config.Server('1"2\\3', listen="12345"), PUBLIC)
    assert 'server_name: "1\\"2\\\\3"\n' in text
    assert 'listen: "12345"\n' in text


def test_a_value_that_nats_conf_can_not_hold_is_a_programming_error() -> None:
    """None must be left out by the caller, never printed."""
    with pytest.raises(TypeError, match="NoneType"):
        server_config.text(server_config.Server("n"), {**PUBLIC, "xkey": None})  # type: ignore[dict-item]


def test_a_second_server_of_one_machine_is_warned_and_has_an_option(tmp_path: Path) -> None:
    """Its monitoring page would be in the way of the first one's (V14)."""
    keys.ensure(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as first:
        taken = f"127.0.0.1:{first.getsockname()[1]}"
        arguments = ["config", "nats-server", "--keys", str(tmp_path), "--listen", "127.0.0.1:1"]
        result = CliRunner().invoke(main, [*arguments, "--monitor", taken])
        assert f"{taken} is taken on this machine now" in result.stderr
        assert f'"{taken}"' in result.stdout
    without = CliRunner().invoke(main, [*arguments, "--monitor", "none"])
    assert "http" not in without.stdout
