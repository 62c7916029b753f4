# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which tokens a request carries, and what its route is called."""

from __future__ import annotations

import pytest

from sandbox.api import faults, tokens

V1 = "/arvados/v1/"


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


def test_a_route_is_named_without_uuids() -> None:
    """So that the calls of one kind are one number."""
    uuid, pdh = "zzzzz-xvhdp-000000000000001", "d41d8cd98f00b204e9800998ecf8427e+0"
    assert faults.route("GET", f"{V1}collections/{pdh}") == f"GET {V1}collections/{{uuid}}"
    log = f"{V1}container_requests/{uuid}/log/{uuid}/stdout.txt"
    assert faults.route("PROPFIND", log) == f"PROPFIND {V1}container_requests/{{uuid}}/log"
