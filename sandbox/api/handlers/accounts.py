# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who am I: the present token, its user, its container."""

from __future__ import annotations

from typing import Any

from sandbox.api import parameters
from sandbox.api.calls import Call
from sandbox.api.handlers import forms
from sandbox.api.queries import listing
from sandbox.model.refusal import Refusal

Form = dict[str, Any]

_TOKEN = "SELECT api_token, expires_at FROM api_client_authorizations WHERE uuid = $1"


async def current_token(call: Call) -> Form:
    """The token that the request carries; allowed with any scopes."""
    caller = call.caller
    stored = await call.backend.row(_TOKEN, caller.token_uuid) or {}
    scopes = list(caller.actor.scopes)
    form: Form = {
        "kind": "arvados#apiClientAuthorization",
        "etag": forms.etag({"uuid": caller.token_uuid, "scopes": scopes}),
        "uuid": caller.token_uuid,
        "owner_uuid": caller.user_uuid,
        "created_at": None,
        "modified_by_user_uuid": None,
        "modified_at": None,
        "api_token": _secret(caller.actor.token, stored.get("api_token")),
        "created_by_ip_address": None,
        "expires_at": forms.time(stored.get("expires_at")),
        "last_used_at": None,
        "last_used_by_ip_address": None,
        "scopes": scopes,
    }
    return listing.selected(form, parameters.array(call.parameters, "select"))


def _secret(token: str, stored: str | None) -> str | None:
    """The secret part of a token; nothing when it was salted for another cluster."""
    parts = token.split("/")
    secret = parts[2] if parts[0] == "v2" and len(parts) > 2 else token
    return secret if stored in (None, secret) else None


async def current_user(call: Call) -> Form:
    """The user of the token."""
    return await _user(call, call.caller.user)


async def system_user(call: Call) -> Form:
    """The user who owns what belongs to the cluster itself."""
    uuid = call.backend.cluster.config.system_user
    row = await call.backend.row("SELECT * FROM users WHERE uuid = $1", uuid)
    return await _user(call, row)


async def _user(call: Call, row: Any) -> Form:
    form = (await forms.present(call, call.backend.tables["users"], [row]))[0]
    return listing.selected(form, parameters.array(call.parameters, "select"))


async def current_container(call: Call) -> Form:
    """The container whose own token this is."""
    query = "SELECT * FROM containers WHERE auth_uuid = $1 AND state IN ('Locked', 'Running')"
    row = await call.backend.row(query, call.caller.token_uuid)
    if row is None:
        raise Refusal(404, "Token is not associated with a container.")
    form = (await forms.present(call, call.backend.tables["containers"], [row]))[0]
    return listing.selected(form, parameters.array(call.parameters, "select"))
