# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whoever reads the past finds in a block all that the rule shows them, in order."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from arvados_nats.permissions.grants import DIRECT, MANAGES, MANAGES_OWNED, OWNED, Grants
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import Decision, Identity
from tests.support.made_events import made
from wsproxy.events.block import Block
from wsproxy.events.principal import decide_event
from wsproxy.events.stored_event import StoredEvent

USERS = [f"zzzzz-tpzed-{number:015d}" for number in range(3)]
READER = Identity("token", USERS[0])
PROJECTS = [f"zzzzz-j7d0g-{number:015d}" for number in range(4)]
OWNERS = st.sampled_from(USERS + PROJECTS)
UUIDS = {
    kind: [f"zzzzz-{infix}-{number:015d}" for number in range(3)]
    for kind, infix in (("4zz18", "4zz18"), ("xvhdp", "xvhdp"), ("o0j2j", "o0j2j"))
}
EVERYTHING = UUIDS["4zz18"] + UUIDS["xvhdp"] + UUIDS["o0j2j"] + USERS + PROJECTS


@st.composite
def _event(draw: st.DrawFn) -> dict[str, Any]:
    uuid = draw(st.sampled_from(EVERYTHING))
    facts: dict[str, Any] | None = None
    if uuid in PROJECTS:
        facts = {"is_role": draw(st.booleans())}
    elif uuid in USERS:
        seen_by = draw(st.lists(OWNERS, max_size=2))
        facts = {"is_merged": False, "is_active": True, "seen_by": tuple(seen_by)}
    elif uuid in UUIDS["o0j2j"]:
        facts = {
            "is_permission": draw(st.booleans()),
            "tail_uuid": draw(st.sampled_from(USERS)),
            "head_uuid": draw(st.sampled_from(PROJECTS)),
            "head_owner_uuid": draw(OWNERS),
        }
    return {"object_uuid": uuid, "owner": draw(OWNERS), "facts": facts}


BITS = st.sampled_from([DIRECT, DIRECT | OWNED, DIRECT | OWNED | MANAGES | MANAGES_OWNED])
GRANTS = st.builds(
    lambda targets, active: Grants(USERS[0], is_active=active, targets=targets),
    st.dictionaries(st.sampled_from(EVERYTHING), BITS, max_size=6),
    st.booleans(),
)


def _block(events: list[dict[str, Any]]) -> Block:
    stored = [made(2 * number, **event) for number, event in enumerate(events, 1)]
    return Block(stored, 2 * len(stored) + 1)


def _sequences(found: list[StoredEvent]) -> list[int]:
    return [stored.sequence for stored in found]


BETWEEN = st.just((0, 40)) | st.tuples(st.integers(0, 40), st.integers(0, 40))


IN_ITS_HEAD = {"is_permission": False, "tail_uuid": USERS[0], "head_uuid": PROJECTS[0]}


@example(
    [
        {
            "object_uuid": UUIDS["o0j2j"][0],
            "owner": PROJECTS[0],
            "facts": {**IN_ITS_HEAD, "head_owner_uuid": PROJECTS[2]},
        }
    ],
    Grants(USERS[0], targets={PROJECTS[2]: DIRECT | OWNED}),
    (0, 40),
)
@settings(max_examples=300)
@given(st.lists(_event(), max_size=20), GRANTS, BETWEEN)
def test_nothing_that_the_rule_shows_is_left_out(
    events: list[dict[str, Any]], grants: Grants, between: tuple[int, int]
) -> None:
    """Of those between the two places; what is found beside is judged, and not shown."""
    block, (after, until) = _block(events), between
    found = block.for_reader(READER, grants, after, until)
    judge = Judge(READER, grants, 0.0)
    shown = [
        stored.sequence
        for stored in block.events
        if after < stored.sequence <= until and decide_event(judge, stored) is not Decision.NO
    ]
    assert set(shown) <= set(_sequences(found))
    assert _sequences(found) == sorted(set(_sequences(found)))
    assert all(after < stored.sequence <= until for stored in found)


@given(st.lists(_event(), max_size=20))
def test_who_has_to_be_asked_about_each_finds_all(events: list[dict[str, Any]]) -> None:
    """Admins, and whose grants nobody tells."""
    block = _block(events)
    assert block.for_reader(READER, None, 0, 100) == block.events
    admin = Grants(USERS[0], is_admin=True)
    assert block.for_reader(READER, admin, 0, 100) == block.events


def test_what_others_have_is_not_found() -> None:
    """Else each reader would go through the whole past."""
    block = _block([{"object_uuid": uuid, "owner": PROJECTS[0]} for uuid in UUIDS["4zz18"]])
    other = Grants(USERS[0], is_active=True, targets={PROJECTS[1]: DIRECT | OWNED})
    assert block.for_reader(READER, other, 0, 100) == []
