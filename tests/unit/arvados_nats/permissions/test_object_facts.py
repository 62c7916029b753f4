# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Facts taken from database rows and API records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from arvados_nats.errors import BadInput
from arvados_nats.permissions.object_facts import ObjectFacts, facts_of, timestamp

AT = datetime(2026, 11, 25, 1, 11, 46, 678476, tzinfo=UTC)

TIMES = [
    # as Arvados' API, its log properties, a text column, asyncpg without and with zone write it
    "2026-11-25T01:11:46.678476Z",
    "2026-11-25T01:11:46.678476000Z",
    "2026-11-25T01:11:46.678476",
    "2026-11-25 01:11:46.678476",
    "2026-11-25T02:11:46.678476+01:00",
    AT.replace(tzinfo=None),
    AT.astimezone(timezone(timedelta(hours=3))),
]


@pytest.mark.parametrize("value", TIMES)
def test_every_form_of_time_is_the_same_moment(value: str | datetime) -> None:
    """Seconds since 1970; UTC where no zone is given."""
    assert timestamp(value) == pytest.approx(AT.timestamp(), abs=1e-6)


def test_no_time_is_none_and_nonsense_is_bad_input() -> None:
    """A trash time that cannot be read must not pass for none."""
    assert timestamp(None) is None
    with pytest.raises(BadInput):
        timestamp("tomorrow")


COLLECTION = "zzzzz-4zz18-000000000000001"
GROUP = "zzzzz-j7d0g-000000000000001"
USER = "zzzzz-tpzed-000000000000001"
LINK = "zzzzz-o0j2j-000000000000001"
LOG = "zzzzz-57u5n-000000000000001"
REQUEST = "zzzzz-xvhdp-000000000000001"

RECORDS = [
    # record, facts
    (
        {"uuid": COLLECTION, "trash_at": "1970-01-01T00:01:40Z"},
        ObjectFacts("collection", COLLECTION, USER, trash_at=100.0),
    ),
    (
        {"uuid": GROUP, "group_class": "role", "trash_at": None},
        ObjectFacts("group", GROUP, USER, is_role=True),
    ),
    (
        {"uuid": GROUP, "group_class": "project"},
        ObjectFacts("group", GROUP, USER, is_role=False),
    ),
    ({"uuid": GROUP}, ObjectFacts("group", GROUP, USER, is_role=None)),
    (
        {"uuid": USER, "is_active": True, "redirect_to_user_uuid": None},
        ObjectFacts("user", USER, USER, is_active=True, is_merged=False),
    ),
    (
        {"uuid": USER, "is_active": False, "redirect_to_user_uuid": USER},
        ObjectFacts("user", USER, USER, is_active=False, is_merged=True),
    ),
    ({"uuid": USER}, ObjectFacts("user", USER, USER)),
    (
        {"uuid": LINK, "link_class": "permission", "tail_uuid": USER, "head_uuid": GROUP},
        ObjectFacts("link", LINK, USER, is_permission=True, tail_uuid=USER, head_uuid=GROUP),
    ),
    (
        {"uuid": LINK, "link_class": "star"},
        ObjectFacts("link", LINK, USER, is_permission=False),
    ),
    ({"uuid": LINK}, ObjectFacts("link", LINK, USER)),
    (
        {"uuid": LOG, "object_uuid": GROUP, "object_owner_uuid": USER},
        ObjectFacts("log", LOG, USER, object_uuid=GROUP, object_owner_uuid=USER),
    ),
    ({"uuid": REQUEST, "state": "Final"}, ObjectFacts("container_request", REQUEST, USER)),
]


@pytest.mark.parametrize(("record", "expected"), RECORDS)
def test_a_record_gives_its_facts_and_no_guess(
    record: dict[str, object], expected: ObjectFacts
) -> None:
    """A column that was not read stays unknown, so that the rule asks."""
    assert facts_of({"owner_uuid": USER} | record) == expected


def test_facts_of_other_rows_are_handed_in() -> None:
    """Requests of a container and the owner of a link's head stand elsewhere."""
    container = {"uuid": "zzzzz-dz642-000000000000001", "owner_uuid": USER}

    assert facts_of(container).requests is None
    assert facts_of(container, requests=((REQUEST, GROUP),)).requests == ((REQUEST, GROUP),)
    link = {"uuid": LINK, "owner_uuid": None, "link_class": "permission"}
    assert facts_of(link, head_owner_uuid=USER).head_owner_uuid == USER


@pytest.mark.parametrize("uuid", ["", "zzzzz-zzzzz-000000000000001", "d41d8cd98f+0", None])
def test_an_object_of_no_known_kind_is_bad_input(uuid: str | None) -> None:
    """A posted row may name anything (docs/facts/arvados.md 0.3)."""
    with pytest.raises(BadInput):
        facts_of({"uuid": uuid, "owner_uuid": USER})
