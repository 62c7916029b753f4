# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The rest of the API: discovery, health, the sweep, logout, and what hangs on one container."""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.responses import RedirectResponse, Response

from sandbox.api import errors
from sandbox.api.answers import plain_json
from sandbox.api.calls import Call
from sandbox.api.handlers import discovery, forms, objects
from sandbox.api.queries import listing
from sandbox.model.refusal import denied

Form = dict[str, Any]

_LOGOUT = """
UPDATE api_client_authorizations SET expires_at = clock_timestamp() AT TIME ZONE 'UTC'
WHERE uuid = $1"""


async def discovery_document(call: Call) -> Form:
    """What methods and services there are."""
    backend = call.backend
    known = discovery.document(call.host, backend.cluster.config, backend.websocket_url)
    return known | {"remoteHosts": backend.remote_hosts}


async def exported_config(call: Call) -> Form:
    """The configuration, which only arvados-controller answers."""
    backend = call.backend
    return discovery.exported_config(call.host, backend.cluster.config, backend.websocket_url)


async def ping(call: Call) -> Response:
    """Health, for whoever has the management token."""
    token = call.backend.management_token
    if not token:
        return plain_json({"errors": "disabled"}, 404)
    _, _, given = call.headers.get("authorization", "").partition(" ")
    if not given:
        return plain_json({"errors": "authorization required"}, 401)
    if not hmac.compare_digest(given.encode(), token.encode()):
        return plain_json({"errors": "authorization error"}, 403)
    return plain_json({"health": "OK"}, 200)


async def trash_sweep(call: Call) -> Response:
    """What the controller asks for every minute; admins only."""
    if not call.caller.is_admin:
        raise errors.forbidden()
    await call.backend.cluster.trash_sweep(call.caller.actor)
    return Response(status_code=204)


async def login(call: Call) -> Response:
    """Lead back with a token, as after a login page, to an origin that is trusted."""
    back = str(call.parameters.get("return_to") or "")
    parts = urlsplit(back)
    if f"{parts.scheme}://{parts.netloc}" not in call.backend.trusted_clients:
        return plain_json(
            {"errors": ["requesting site is not listed in TrustedClients config"]}, 400
        )
    if not call.backend.login_token:
        return plain_json({"errors": ["nobody is at the keyboard"]}, 403)
    token = urlencode({"api_token": call.backend.login_token})
    return RedirectResponse(f"{back}{'&' if parts.query else '?'}{token}", 302)


async def logout(call: Call) -> Response:
    """Expire the token as the controller does: no log row (docs/facts/arvados.md 1)."""
    await call.backend.pool.execute(_LOGOUT, call.caller.token_uuid)
    back = call.parameters.get("return_to")
    return RedirectResponse(str(back), 302) if back else Response(status_code=204)


async def nothing(call: Call) -> Form:
    """A list that is always empty here."""
    kinds = {"keep_services": "keepService", "user_agreements": "collection"}
    wanted = listing.options(call.parameters)
    answer = objects.envelope(f"arvados#{kinds[call.resource]}List", wanted)
    return answer | {"items_available": 0}


async def no_keep_services(call: Call) -> Form:
    """The Keep services for this client: none, the sandbox has no Keep."""
    answer = await nothing(call)
    return answer | {"offset": None, "limit": None}


async def provenance(call: Call) -> Form:
    """Where a collection came from; here only itself is known."""
    row = await objects.find(call, call.table, call.uuid)
    form = (await forms.present(call, call.table, [row]))[0]
    return {call.uuid: form | {"unsigned_manifest_text": form["manifest_text"]}}


async def container_auth(call: Call) -> Form:
    """The token of a container, for the dispatcher that has locked it."""
    row = await objects.find(call, call.table, call.uuid)
    if row["locked_by_uuid"] != call.caller.token_uuid:
        raise denied("#<ArvadosModel::PermissionDeniedError: Not locked by your token>")
    query = "SELECT * FROM api_client_authorizations WHERE uuid = $1"
    table = call.backend.tables["api_client_authorizations"]
    rows = await call.backend.rows(query, row["auth_uuid"])
    return (await forms.present(call, table, rows))[0]


async def secret_mounts(call: Call) -> Form:
    """The secret mounts of a container, for the container itself."""
    row = await objects.find(call, call.table, call.uuid)
    if row["auth_uuid"] != call.caller.token_uuid:
        raise denied("#<ArvadosModel::PermissionDeniedError: Token is not associated with this>")
    return {"secret_mounts": row["secret_mounts"] or {}}


async def container_status(call: Call) -> Form:
    """What the controller says of a request's container; the scheduling text is empty here."""
    request = await objects.find(call, call.table, call.uuid)
    uuid = request["container_uuid"]
    if not uuid:
        return {"uuid": "", "scheduling_status": ""}
    container = await objects.find(call, call.backend.tables["containers"], uuid)
    return {"uuid": uuid, "container_state": container["state"], "scheduling_status": ""}
