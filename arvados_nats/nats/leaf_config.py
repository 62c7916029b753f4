# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""nats.conf of a leaf node: a small server beside a wsproxy that is far from the others.

It keeps nothing. Each message that somebody there wants crosses the distance once; the streams are
asked for where they are. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arvados_nats.contract.accounts import ARVADOS
from arvados_nats.nats import accounts_config, conf_text, server_config


@dataclass(frozen=True, slots=True)
class Leaf:
    """One such server; `seed`: wsproxy's, as whom it comes to the servers at `hubs`."""

    name: str
    hubs: tuple[str, ...]
    seed: str = field(repr=False)
    listen: str = "127.0.0.1:4222"
    authority: str | None = None
    """Of the servers' certificates, if a private one."""


def settings(leaf: Leaf, public: Mapping[str, str], payload: int) -> dict[str, Any]:
    """The whole configuration as plain values."""
    remote = {
        "urls": list(leaf.hubs),
        "account": ARVADOS,
        "nkey": leaf.seed,
        **({"tls": {"ca_file": leaf.authority}} if leaf.authority else {}),
    }
    return {
        "server_name": leaf.name,
        "listen": leaf.listen,
        "max_payload": conf_text.Size(payload),
        "leafnodes": {"remotes": [remote]},
        "accounts": {
            ARVADOS: {
                "users": [{"nkey": key} for key in accounts_config.known_keys(public, "wsproxy")],
                "mappings": {"$JS.API.>": f"$JS.{server_config.DOMAIN}.API.>"},
            }
        },
    }
