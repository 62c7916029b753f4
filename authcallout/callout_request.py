# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a NATS server asks: may this connection come in? (docs/facts/nats-callout.md 1.1)

Pure: bytes of a checked request JWT in, one frozen value out. The token is the only secret in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import accounts
from arvados_nats.errors import BadInput
from authcallout import nkey_jwt

_AUDIENCE = "nats-authorization-request"


@dataclass(frozen=True, slots=True)
class CalloutRequest:
    """One login attempt. `cid` and `server_id` name the connection for a later kick."""

    user_nkey: str
    server_id: str
    server_xkey: str
    cid: int
    host: str
    kind: str
    connection_type: str
    client_name: str
    token: Token
    asks: bool = False
    """It comes to ask, not to listen: it named itself `accounts.ASKING_USER`."""
    library: str = ""

    @property
    def takes_no_for_an_answer(self) -> bool:
        """Whether its library ends for good with the second refusal, and comes back where it finds
        the connection closed (docs/facts/nats-callout.md 2, "Clients when kicked")."""
        return self.library == "go" or self.library.startswith("nats.")


def parse(request_jwt: bytes) -> CalloutRequest:
    """The request in a JWT that a server signed; BadInput if it is none."""
    claims = nkey_jwt.verify(request_jwt, issued_by="N", audience=_AUDIENCE)
    nats = _part(claims, "nats")
    server, client, options = (
        _part(nats, name) for name in ("server_id", "client_info", "connect_opts")
    )
    if nats.get("type") != "authorization_request" or server.get("id") != claims["iss"]:
        raise BadInput("the JWT is no authorization request of the server that signed it")
    try:
        return CalloutRequest(
            user_nkey=str(nats["user_nkey"]),
            server_id=str(server["id"]),
            server_xkey=str(server.get("xkey", "")),
            cid=int(client.get("id", 0)),
            host=str(client.get("host", "")),
            kind=str(client.get("kind", "")),
            connection_type=str(client.get("type", "")),
            client_name=str(options.get("name", ""))[:256],
            token=Token(str(options.get("auth_token") or options.get("pass") or "").strip()),
            asks=options.get("user") == accounts.ASKING_USER,
            library=str(options.get("lang", ""))[:64],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BadInput(f"the authorization request lacks {error}") from error


def _part(claims: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = claims.get(name)
    return found if isinstance(found, dict) else {}
