# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What is believed of a log row: a table of rows against records of the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import pytest

from arvados_nats.permissions.object_facts import ObjectFacts
from publishers.events import enrich
from publishers.events.rows import LogRow

NOON = datetime(2026, 11, 25, 12, 0, 0, 123456)
CONTAINER = "zzzzz-dz642-aaaaaaaaaaaaaaa"
REQUEST = "zzzzz-xvhdp-aaaaaaaaaaaaaaa"
COLLECTION = "zzzzz-4zz18-aaaaaaaaaaaaaaa"
PROJECT = "zzzzz-j7d0g-aaaaaaaaaaaaaaa"
USER = "zzzzz-tpzed-aaaaaaaaaaaaaaa"
OTHER_USER = "zzzzz-tpzed-bbbbbbbbbbbbbbb"
LINK = "zzzzz-o0j2j-aaaaaaaaaaaaaaa"
TOKEN = "zzzzz-gj3su-aaaaaaaaaaaaaaa"
MACHINE = "zzzzz-2x53u-aaaaaaaaaaaaaaa"

RECORDS: dict[str, Mapping[str, Any]] = {
    COLLECTION: {
        "uuid": COLLECTION,
        "owner_uuid": PROJECT,
        "modified_at": NOON,
        "name": "a",
        "portable_data_hash": "d41d8cd98f00b204e9800998ecf8427e+0",
        "is_trashed": False,
        "trash_at": None,
        "delete_at": None,
        "version": 1,
        "current_version_uuid": COLLECTION,
        "file_count": 0,
        "file_size_total": 2**60,
    },
    CONTAINER: {
        "uuid": CONTAINER,
        "owner_uuid": "zzzzz-tpzed-000000000000000",
        "modified_at": NOON,
        "state": "Running",
        "exit_code": None,
        "progress": 0.5,
        "output": None,
        "log": None,
        "locked_by_uuid": TOKEN,
        "lock_count": 1,
        "started_at": NOON,
        "finished_at": None,
        "runtime_status": {"activity": "x"},
        "cost": 0.0,
        "gateway_address": "a:1",
        "requests": [[REQUEST, PROJECT]],
    },
    PROJECT: {
        "uuid": PROJECT,
        "owner_uuid": USER,
        "modified_at": NOON,
        "name": "p",
        "is_trashed": False,
        "trash_at": None,
        "delete_at": None,
        "group_class": "project",
        "frozen_by_uuid": None,
    },
    USER: {
        "uuid": USER,
        "owner_uuid": "zzzzz-tpzed-000000000000000",
        "modified_at": NOON,
        "is_active": True,
        "is_admin": False,
        "username": "u",
        "redirect_to_user_uuid": None,
    },
    LINK: {
        "uuid": LINK,
        "owner_uuid": "zzzzz-tpzed-000000000000000",
        "modified_at": NOON,
        "name": "can_read",
        "link_class": "permission",
        "tail_uuid": USER,
        "head_uuid": PROJECT,
    },
    TOKEN: {"uuid": TOKEN, "owner_uuid": USER, "user_id": 3, "expires_at": NOON},
}


def _row(object_uuid: str | None, event_type: str | None = "update", **fields: Any) -> LogRow:
    kinds = {"dz642": "container", "4zz18": "collection", "j7d0g": "group", "tpzed": "user"}
    kinds |= {"o0j2j": "link", "gj3su": "api_client_authorization", "2x53u": "virtual_machine"}
    values: dict[str, Any] = {
        "id": 1,
        "uuid": "zzzzz-57u5n-aaaaaaaaaaaaaaa",
        "event_type": event_type,
        "event_at": NOON,
        "created_at": NOON,
        "object_uuid": object_uuid,
        "object_owner_uuid": OTHER_USER,
        "kind": kinds.get((object_uuid or "zzzzz-none-")[6:11], "other"),
        "properties": {},
    }
    return LogRow(**{**values, **fields})


MISSING = "zzzzz-4zz18-bbbbbbbbbbbbbbb"

AUDIENCE = {
    "object": (_row(COLLECTION), [(PROJECT, COLLECTION)]),
    "forged delete of a living object": (_row(COLLECTION, "delete"), [(PROJECT, COLLECTION)]),
    "container": (_row(CONTAINER), [(PROJECT, REQUEST)]),
    "token": (_row(TOKEN), [(USER, TOKEN)]),
    "delete of what is gone": (_row(MISSING, "delete"), [(OTHER_USER, MISSING)]),
    "delete without an owner": (_row(MISSING, "delete", object_owner_uuid=None), []),
    "update of what is gone": (_row(MISSING), []),
    "kind that cannot be read": (_row(MACHINE), []),
    "nothing": (_row(None, "delete"), []),
}


@pytest.mark.parametrize(("row", "audience"), AUDIENCE.values(), ids=AUDIENCE.keys())
def test_the_audience_is_the_databases(row: LogRow, audience: list[tuple[str, str]]) -> None:
    """The row's own owner counts only for an object that is gone."""
    assert enrich._event(row, RECORDS).audience == audience


FACTS = {
    "collection": (
        _row(COLLECTION),
        ObjectFacts("collection", COLLECTION, PROJECT),
    ),
    "container": (
        _row(CONTAINER),
        ObjectFacts(
            "container",
            CONTAINER,
            "zzzzz-tpzed-000000000000000",
            requests=((REQUEST, PROJECT),),
        ),
    ),
    "permission link": (
        _row(LINK),
        ObjectFacts(
            "link",
            LINK,
            "zzzzz-tpzed-000000000000000",
            is_permission=True,
            tail_uuid=USER,
            head_uuid=PROJECT,
            head_owner_uuid=USER,
        ),
    ),
    "user": (
        _row(USER),
        ObjectFacts("user", USER, "zzzzz-tpzed-000000000000000", is_active=True, is_merged=False),
    ),
    "token": (_row(TOKEN), ObjectFacts("api_client_authorization", TOKEN, USER)),
    "delete: the owner's": (
        _row(MISSING, "delete", object_owner_uuid=PROJECT),
        ObjectFacts("group", PROJECT, USER, is_role=False),
    ),
}


@pytest.mark.parametrize(("row", "facts"), FACTS.values(), ids=FACTS.keys())
def test_facts_are_what_the_rule_asks_for(row: LogRow, facts: ObjectFacts) -> None:
    """They survive the journey as JSON."""
    sent = msgspec.json.encode(enrich._event(row, RECORDS).facts)
    assert msgspec.json.decode(sent, type=ObjectFacts) == facts


def test_the_head_of_a_link_that_is_gone_has_no_owner() -> None:
    """Known to be gone, which is not the same as not known."""
    link = {**RECORDS[LINK], "head_uuid": MISSING}
    assert enrich._event(_row(LINK), {LINK: link}).facts["head_owner_uuid"] == ""


def test_an_event_carries_the_row_as_it_was_posted() -> None:
    """Ids, types and owners a user chose stay as they are in the payload."""
    event = enrich._event(_row("bogus", "Odd Type", id=2**63 - 1), RECORDS)
    assert (event.id, event.event_type, event.object_uuid) == (2**63 - 1, "Odd Type", "bogus")
    assert (event.object_kind, event.object_owner_uuid) == ("", OTHER_USER)
    assert event.created_at == "2026-11-25T12:00:00.123456Z"
