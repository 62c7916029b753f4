# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Method and path -> handler. What is not listed is 404, also with a wrong method."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sandbox.api.calls import Call
from sandbox.api.handlers import accounts, contents, objects, permissions, service, writes

Handler = Callable[[Call], Awaitable[Any]]

_API = "/arvados/v1/"
_OBJECTS = (
    "api_client_authorizations",
    "authorized_keys",
    "collections",
    "container_requests",
    "containers",
    "credentials",
    "groups",
    "links",
    "logs",
    "users",
    "virtual_machines",
    "workflows",
)
_LOG = re.compile(r"/arvados/v1/container_requests/([^/]+)/log(/.*)?")


@dataclass(frozen=True, slots=True)
class Route:
    """A handler, and what the path says. `public`: no token is needed."""

    handler: Handler
    resource: str = ""
    uuid: str = ""
    public: bool = False


_WHOLE_PATHS: dict[tuple[str, str], Route] = {
    ("GET", "/discovery/v1/apis/arvados/v1/rest"): Route(service.discovery_document, public=True),
    ("GET", "/arvados/v1/config"): Route(service.exported_config, public=True),
    ("GET", "/_health/ping"): Route(service.ping, public=True),
    ("POST", "/sys/trash_sweep"): Route(service.trash_sweep),
    ("GET", "/login"): Route(service.login, public=True),
    ("GET", "/logout"): Route(service.logout),
}
_FIXED: dict[tuple[str, str], Handler] = {
    ("GET", "api_client_authorizations/current"): accounts.current_token,
    ("GET", "containers/current"): accounts.current_container,
    ("GET", "users/current"): accounts.current_user,
    ("GET", "users/system"): accounts.system_user,
    ("POST", "users/setup"): writes.set_up_user,
    ("POST", "users/merge"): writes.merge_users,
    ("GET", "groups/contents"): contents.contents,
    ("GET", "groups/shared"): contents.shared,
    ("GET", "computed_permissions"): permissions.computed,
    ("GET", "keep_services/accessible"): service.no_keep_services,
    ("GET", "keep_services"): service.nothing,
    ("GET", "user_agreements"): service.nothing,
}
_OF_ONE: dict[tuple[str, str], Handler] = {
    ("GET", "permissions/{}"): permissions.of_object,
    ("GET", "groups/{}/contents"): contents.contents,
    ("POST", "groups/{}/trash"): writes.trash,
    ("POST", "groups/{}/untrash"): writes.untrash,
    ("POST", "collections/{}/trash"): writes.trash,
    ("POST", "collections/{}/untrash"): writes.untrash,
    ("GET", "collections/{}/provenance"): service.provenance,
    ("GET", "containers/{}/auth"): service.container_auth,
    ("GET", "containers/{}/secret_mounts"): service.secret_mounts,
    ("POST", "containers/{}/lock"): writes.lock,
    ("POST", "containers/{}/unlock"): writes.unlock,
    ("POST", "containers/{}/update_priority"): writes.update_priority,
    ("GET", "container_requests/{}/container_status"): service.container_status,
    ("POST", "users/{}/setup"): writes.set_up_user,
    ("POST", "users/{}/unsetup"): writes.unset_up_user,
    ("POST", "users/{}/activate"): writes.activate_user,
}
_ON_LIST: dict[str, Handler] = {"GET": objects.index, "POST": writes.create}
_ON_ONE: dict[str, Handler] = {
    "GET": objects.show,
    "PUT": writes.update,
    "PATCH": writes.update,
    "DELETE": writes.destroy,
}


def log_folder(path: str) -> tuple[str, str] | None:
    """Request uuid and the rest of the path of a container log request; None for others."""
    match = _LOG.fullmatch(path)
    return (match[1], match[2] or "") if match else None


def always_allowed(path: str) -> bool:
    """Whether a token may ask this whatever its scopes."""
    return path == f"{_API}api_client_authorizations/current"


def find(method: str, path: str) -> Route | None:
    """The route of a request, None when there is none."""
    method = "GET" if method == "HEAD" else method
    whole = _WHOLE_PATHS.get((method, path))
    if whole or not path.startswith(_API):
        return whole
    inner = path.removeprefix(_API).rstrip("/")
    resource, _, rest = inner.partition("/")
    fixed = _FIXED.get((method, inner))
    if fixed:
        return Route(fixed, resource)
    uuid, _, action = rest.partition("/")
    of_one = _OF_ONE.get((method, f"{resource}/{{}}/{action}" if action else f"{resource}/{{}}"))
    if of_one and uuid:
        return Route(of_one, resource, uuid)
    if resource not in _OBJECTS or action:
        return None
    handler = _ON_ONE.get(method) if uuid else _ON_LIST.get(method)
    return Route(handler, resource, uuid) if handler else None
