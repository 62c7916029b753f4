# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a token's scopes allow, which tokens a request carries, and how routes are found."""

from __future__ import annotations

import pytest

from sandbox.api import faults, routes, tokens
from sandbox.api.callers import Caller
from sandbox.model.actors import Actor
from sandbox.model.config import ClusterConfig

V1 = "/arvados/v1/"


def caller(*scopes: str) -> Caller:
    """A user whose token has these scopes."""
    actor = Actor("zzzzz-tpzed-000000000000001", 1, False, True, scopes=scopes)
    return Caller(actor, ClusterConfig(), {"uuid": actor.uuid}, {actor.uuid: 3})


@pytest.mark.parametrize(
    ("scope", "method", "path", "allowed"),
    [
        ("all", "DELETE", f"{V1}users/x", True),
        ("GET /", "GET", f"{V1}users/current", True),
        ("GET /", "HEAD", f"{V1}users/current", True),
        ("GET /", "POST", f"{V1}groups", False),
        (f"GET {V1}collections/", "GET", f"{V1}collections/x", True),
        (f"GET {V1}collections/", "GET", f"{V1}collections", False),
        (f"GET {V1}collections", "GET", f"{V1}collections", True),
        (f"GET {V1}collections", "GET", f"{V1}collections/x", False),
        (f"POST {V1}none", "GET", f"{V1}users/current", False),
    ],
)
def test_scopes_are_exact_or_prefixes(scope: str, method: str, path: str, allowed: bool) -> None:
    """A prefix ends in a slash; HEAD is allowed by GET (docs/facts/arvados.md 2)."""
    assert caller(scope).allows(method, path) is allowed


@pytest.mark.parametrize(
    ("headers", "given", "expected"),
    [
        ({"authorization": "Bearer a"}, {}, ["a"]),
        ({"authorization": "OAuth2 a"}, {"api_token": "b"}, ["a", "b"]),
        ({"authorization": "Basic a"}, {}, []),
        ({"authorization": "Bearer "}, {}, []),
        ({}, {"reader_tokens": '["c","d"]'}, ["c", "d"]),
    ],
)
def test_a_token_may_come_in_several_ways(
    headers: dict[str, str], given: dict[str, str], expected: list[str]
) -> None:
    """Header, query, reader_tokens."""
    assert tokens.presented(headers, given) == expected


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", f"{V1}groups", ("groups", "")),
        ("HEAD", f"{V1}groups/x", ("groups", "x")),
        ("PATCH", f"{V1}groups/x", ("groups", "x")),
        ("POST", f"{V1}groups/x/trash", ("groups", "x")),
        ("GET", f"{V1}users/current", ("users", "")),
        ("GET", f"{V1}permissions/x", ("permissions", "x")),
        ("PUT", f"{V1}groups", None),
        ("POST", f"{V1}groups/x/nonsense", None),
        ("POST", f"{V1}groups/x", None),
        ("GET", f"{V1}nonsense", None),
        ("GET", f"{V1}permissions", None),
        ("GET", "/nonsense", None),
        ("POST", "/sys/trash_sweep", ("", "")),
    ],
)
def test_a_route_is_found_by_method_and_path(
    method: str, path: str, found: tuple[str, str] | None
) -> None:
    """Everything else is 404, also with a wrong method."""
    route = routes.find(method, path)
    assert (route and (route.resource, route.uuid)) == found


def test_a_route_is_named_without_uuids() -> None:
    """So that the calls of one kind are one number."""
    uuid, pdh = "zzzzz-xvhdp-000000000000001", "d41d8cd98f00b204e9800998ecf8427e+0"
    assert faults.route("GET", f"{V1}collections/{pdh}") == f"GET {V1}collections/{{uuid}}"
    log = f"{V1}container_requests/{uuid}/log/{uuid}/stdout.txt"
    assert faults.route("PROPFIND", log) == f"PROPFIND {V1}container_requests/{{uuid}}/log"
