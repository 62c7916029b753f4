# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who may do what on the NATS servers of a cluster: six accounts, and the login.

Pure. The one description of it: a bare server's nats.conf, the sandbox and the chart's values all
come from it or are tested equal to it. Reasons: docs/facts/nats-callout.md 1.7 and 9,
docs/facts/helm.md 2.

AUTH     the callout service alone: whoever can publish here can refuse logins
SYS      the system account, for the one identity that cuts connections
ARVADOS  streams and our services, one trust zone
SENDERS  who adds to one stream: containers with their own token, machines with their system log
USERS    everybody who comes with an Arvados token: hears the live tree, publishes nothing at all
REQUESTS the same people asking: services alone, so that no answer is heard as an event
No configured user in the last three, and JetStream in ARVADOS alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arvados_nats.contract import streams, subjects
from arvados_nats.contract.accounts import ARVADOS, AUTH, REQUESTS, SENDERS, SYS, USERS
from arvados_nats.nats.conf_text import GIB, KIB, MIB, Size

STATIC_USERS = ("callout", "callout-service", "publisher", "wsproxy", "sys")
"""Identities that log in by nkey, without the callout: they work while it is down."""


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """How much the accounts may use. Account limits must fit the server's own, or it dies."""

    store: int = 20 * GIB
    """Bytes of one server's file store; ARVADOS may use nine tenths of it."""
    copies: int = 1
    """How many servers keep each stream. Every copy counts against the account's store."""
    max_streams: int = 16
    max_consumers: int = 1000
    user_connections: int = 20_000
    """Connections of USERS, and of REQUESTS, on one server, all users together."""
    user_subscriptions: int = 20_000
    """Subscriptions of one connection in USERS."""
    asking_subscriptions: int = 1000
    """Subscriptions of one connection in REQUESTS: answers that it waits for."""
    user_payload: int = 64 * KIB
    """The largest request that a user may send."""
    sender_payload: int = streams.MAX_SYSTEM_RECORD
    """The largest message of SENDERS, which a machine's record is; a container's token allows it
    much less (`authcallout.admissions`)."""
    payload: int = 8 * MIB
    """The largest message at all: a callout answer with 20,000 subjects takes 3 MiB."""
    control_line: int = 16 * KIB
    """The CONNECT line holds the token, and an OIDC access token can be 3 KiB."""


_SENT = (
    f"{subjects.LOGS}.>",
    f"$JS.API.DIRECT.GET.{streams.LOGS}.{subjects.LOGS}.>",
    f"{subjects.SYSTEM_LOGS}.>",
    f"$JS.API.DIRECT.GET.{streams.SYSTEM_LOGS}.{subjects.SYSTEM_LOGS}.>",
)
"""What SENDERS may be permitted to publish, as services of ARVADOS.

Not as clients in ARVADOS: no permission covers the reply subject of a message, and JetStream
answers there with what a sender has stored, as itself. So who may publish anything in ARVADOS can
forge events. The answer to a service stays in the account that asked, and who asks hears nothing
there but answers: that is why users who listen are in another account than users who ask.
"""


_CLOSED = {"publish": {"deny": [">"]}, "subscribe": {"deny": [">"]}}
"""Meant to close what a user JWT leaves open. nats-server 2.15.1 forgets it for accounts without
configured users, so the callout writes both sides itself."""


def accounts(public: Mapping[str, str], limits: AccountLimits) -> dict[str, Any]:
    """The six accounts; `public` gives the public key of each identity, and next ones
    (`service.keys.AHEAD`)."""
    return {
        SYS: {"users": _users(public, "sys")},
        AUTH: {"users": _users(public, "callout", permissions=_callout_permissions())},
        ARVADOS: {
            "jetstream": {
                "max_mem": 0,
                "max_file": Size(limits.store * limits.copies * 9 // 10 // MIB * MIB),
                "max_streams": limits.max_streams,
                "max_consumers": limits.max_consumers,
            },
            "users": [
                user
                for name in ("publisher", "wsproxy", "callout-service")
                for user in _users(public, name)
            ],
            "exports": [
                {"stream": f"{subjects.LIVE}.>", "accounts": [USERS]},
                {
                    "service": f"{subjects.API}.>",
                    "accounts": [REQUESTS],
                    "response": "stream",
                    "threshold": "30s",
                },
                *({"service": subject, "accounts": [SENDERS]} for subject in _SENT),
            ],
        },
        SENDERS: {
            "limits": _limits(limits, limits.user_subscriptions, limits.sender_payload),
            "imports": [{"service": {"account": ARVADOS, "subject": subject}} for subject in _SENT],
        },
        USERS: {
            "limits": _limits(limits, limits.user_subscriptions, limits.user_payload),
            "default_permissions": _CLOSED,
            "imports": [{"stream": {"account": ARVADOS, "subject": f"{subjects.LIVE}.>"}}],
        },
        REQUESTS: {
            "limits": _limits(limits, limits.asking_subscriptions, limits.user_payload),
            "default_permissions": _CLOSED,
            "imports": [
                {"service": {"account": ARVADOS, "subject": f"{subjects.API}.>"}, "share": True}
            ],
        },
    }


def _limits(limits: AccountLimits, subscriptions: int, payload: int) -> dict[str, Any]:
    return {
        "max_connections": limits.user_connections,
        "max_subscriptions": subscriptions,
        "max_payload": Size(payload),
    }


def known_keys(public: Mapping[str, str], role: str) -> list[str]:
    """The key of a role and, where one was made beforehand, the one that it has next."""
    return [public[name] for name in (role, f"{role}.next") if name in public]


def _users(public: Mapping[str, str], role: str, **more: Any) -> list[dict[str, Any]]:
    return [{"nkey": key, **more} for key in known_keys(public, role)]


def _callout_permissions() -> dict[str, Any]:
    return {
        "subscribe": ["$SYS.REQ.USER.AUTH"],
        "publish": {"deny": [">"]},
        "allow_responses": {"max": 1, "expires": "5s"},
    }


def authorization(public: Mapping[str, str]) -> dict[str, Any]:
    """Who decides about a login. A longer timeout helps nobody: clients give up after 2 s."""
    return {
        "timeout": 2,
        "auth_callout": {
            "issuer": public["issuer"],
            "account": AUTH,
            "auth_users": [key for name in STATIC_USERS for key in known_keys(public, name)],
            "xkey": public["xkey"],
            "allowed_accounts": [USERS, REQUESTS],
        },
    }
