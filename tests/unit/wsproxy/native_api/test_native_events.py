# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a page of `arvados.api.events` holds, and how it is looked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arvados_nats.contract import answers
from arvados_nats.contract.answers import Busy
from arvados_nats.errors import BadInput, Refused, Unavailable
from arvados_nats.permissions.grants import OWNED, Grants
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import Identity
from tests.support.made_events import COLLECTION, PROJECT, USER, made
from wsproxy.events.cursor import EventCursor
from wsproxy.native_api.events import EventsRequest, _begin, _Page, pattern

REQUEST = "zzzzz-xvhdp-request00000000"
CONTAINER = "zzzzz-dz642-container000000"
OTHER = "zzzzz-j7d0g-other0000000000"


def judge(*owners: str, scopes: tuple[str, ...] = ("all",)) -> Judge:
    grants = Grants(USER, is_active=True, targets=dict.fromkeys(owners, OWNED))
    return Judge(Identity("zzzzz-gj3su-000000000000001", USER, scopes=scopes), grants, 0.0)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "*.*.*"),
        ({"kinds": ["collection"]}, "collection.*.*"),
        ({"kinds": ["collection", "group"]}, "*.*.*"),
        ({"event_types": ["update"]}, "*.*.update"),
        ({"event_types": ["Not A Token"]}, "*.*.other"),
        ({"objects": [COLLECTION]}, f"collection.{COLLECTION}.*"),
        ({"objects": [REQUEST]}, "*.*.*"),
        ({"objects": [COLLECTION, OTHER]}, "*.*.*"),
        (
            {"objects": [COLLECTION], "event_types": ["create"], "kinds": ["collection"]},
            f"collection.{COLLECTION}.create",
        ),
    ],
)
def test_the_narrowest_pattern(asked: dict[str, Any], expected: str) -> None:
    """Never narrower than what is wanted: a request is asked for to get its containers as well."""
    request = EventsRequest(**asked)
    assert _Page(request).pattern == f"arvados.events.{expected}"


def test_a_pattern_without_filters_is_everything() -> None:
    assert pattern(None, None, None) == "arvados.events.*.*.*"


def test_what_is_shown_names_no_other_reader() -> None:
    """Of a container only the requests that this reader may see, and no facts."""
    page = _Page(EventsRequest())
    stored = made(
        7,
        CONTAINER,
        audience=[(PROJECT, REQUEST), (OTHER, "zzzzz-xvhdp-secret000000000")],
        facts={"requests": [[REQUEST, PROJECT], ["zzzzz-xvhdp-secret000000000", OTHER]]},
    )
    part = page.part(stored, judge(PROJECT))
    assert part is not None
    shown = json.loads(part.data)
    assert shown["audience"] == [[PROJECT, REQUEST]]
    assert shown["facts"] == {}
    assert "secret" not in part.data.decode()
    assert part.headers["Nats-Sequence"] == "7"


def test_what_may_not_be_read_is_no_part_of_a_page() -> None:
    """Forbidden, out of scope, and what only Arvados could tell."""
    page = _Page(EventsRequest())
    assert page.part(made(1), judge(PROJECT)) is not None
    assert page.part(made(1), judge(OTHER)) is None
    assert page.part(made(1), judge(PROJECT, scopes=("GET /arvados/v1/groups/",))) is None
    asked_of_arvados = made(1, "zzzzz-fngyi-000000000000001")
    assert page.part(asked_of_arvados, judge(PROJECT)) is None


@pytest.mark.parametrize(
    ("given", "events"), [({"limit": 3}, 3), ({"max_bytes": 1}, 1), ({"max_bytes": 1000}, 3)]
)
def test_a_page_is_full(given: dict[str, Any], events: int) -> None:
    """By number, or by bytes, of which at least one event comes."""
    page = _Page(EventsRequest(**given))
    count = 0
    while not page.full:
        count += page.part(made(count + 1), judge(PROJECT)) is not None
    assert count == events


def test_a_page_that_finds_nothing_ends_too() -> None:
    """A rare kind does not keep a request for ever."""
    page = _Page(EventsRequest(kinds=["workflow"]))
    looked = 0
    while not page.full:
        assert page.part(made(looked + 1), judge(PROJECT)) is None
        page.looked_at(500)
        looked += 500
    assert looked == 20_000


@pytest.mark.parametrize(
    ("begin", "cursor", "gap", "place"),
    [
        ("oldest", None, False, 9),
        ("now", None, False, 50),
        ("oldest", EventCursor("now", 20), False, 20),
        ("oldest", EventCursor("now", 9), False, 9),
        ("oldest", EventCursor("now", 8), True, 9),
        ("oldest", EventCursor("before", 20), True, 9),
        ("oldest", EventCursor("now", 60), True, 9),
    ],
)
def test_where_a_page_begins(begin: Any, cursor: Any, gap: bool, place: int) -> None:
    """The stream was made `now` and holds 10 to 50; what is gone from it is told."""
    known = cursor is None or cursor.created == "now"
    found, after = _begin(EventsRequest(begin=begin), cursor, 10, 50, known=known)
    assert (found is not None, after) == (gap, place)


@pytest.mark.parametrize(
    ("error", "code", "temporary"),
    [
        (BadInput("limit: too large"), "bad_request", False),
        (Refused("there is no such object"), "not_readable", False),
        (Unavailable("PostgreSQL: secret host"), "unavailable", True),
        (Busy(), "busy", True),
    ],
)
def test_errors_say_what_to_do_and_no_more(error: Any, code: str, temporary: bool) -> None:
    """What is down is nobody's business outside."""
    part = answers.failure(error)
    found = json.loads(part.data)
    assert part.headers == {"Arvados-Error": code}
    assert (found["code"], found["temporary"]) == (code, temporary)
    assert "secret" not in found["error"]
    assert answers.code(part) == code
