# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which rows are Arvados' own word: tables of histories of one object, with rows posted between.

A history is told as the transactions that wrote it. `S(n)` is the object's n-th state.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publishers.events.rows import LogRow
from publishers.events.states import State, agree, state_of
from publishers.events.verification import Chain, Claim, Present, Seen, chain

NOON = datetime(2026, 11, 25, 12, 0, 0, 123456)
OBJECT = "zzzzz-4zz18-aaaaaaaaaaaaaaa"
OWNER = "zzzzz-j7d0g-aaaaaaaaaaaaaaa"
SECOND = timedelta(seconds=1)


def seconds(after_noon: float) -> float:
    """Since 1970."""
    return NOON.replace(tzinfo=UTC).timestamp() + after_noon


EARLY = seconds(-3600)


def values(n: int, **other: Any) -> dict[str, Any]:
    """The n-th state as a record has it."""
    return {
        "owner_uuid": OWNER,
        "name": f"name {n}",
        "modified_at": NOON + n * SECOND,
        "portable_data_hash": "d41d8cd98f00b204e9800998ecf8427e+0",
        "is_trashed": False,
        "trash_at": None,
        "delete_at": None,
        "version": 1,
        "current_version_uuid": OBJECT,
        "file_count": n,
        "file_size_total": 2**60,
        **other,
    }


def shown(n: int, **other: Any) -> dict[str, Any]:
    """The n-th state as a row shows it."""
    found = values(n, **other)
    if isinstance(found["modified_at"], datetime):
        found["modified_at"] = found["modified_at"].isoformat() + "789Z"
    return {**found, "file_size_total": str(found["file_size_total"])}


def row(
    at: float,
    xid: int,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
    kind: str = "update",
    **beside: Any,
) -> LogRow:
    """A row that was written so many seconds after noon, by this transaction."""
    sides = {"old_attributes": old, "new_attributes": new}
    properties = {side: dict(said) for side, said in sides.items() if said is not None} | beside
    created = NOON + at * SECOND
    uuid = f"zzzzz-57u5n-{xid:07d}{int(at * 1000):08d}"
    return LogRow(xid, uuid, kind, NOON, created, OBJECT, OWNER, "collection", properties, xid)


def own(n: int) -> LogRow:
    """Arvados' row about the change to the n-th state, in transaction 10 n."""
    if n == 1:
        return row(n, 10, None, shown(1), "create")
    return row(n, 10 * n, shown(n - 1), shown(n))


Now = tuple[Present | None, set[int]]
"""The object as it is, and the transaction that wrote it."""
GONE: Now = (None, set())


def present(n: int, xid: int | None = None) -> Now:
    record = {**values(n), "created_at": NOON}
    return Present.of("collection", record), {10 * n if xid is None else xid}


def seen(n: int) -> Seen:
    return Seen(state_of("collection", shown(n)), seconds(n))


def judged(
    rows: list[LogRow],
    now: Now,
    before: Seen | None = None,
    covered: float | None = None,
) -> list[bool | None]:
    claims = [Claim.of(one) for one in rows]
    there, own = now
    found = chain(claims, there, before, own, covered)
    return [found.verdict(claim, there) for claim in claims]


A_COPY = row(3.1, 35, shown(2), shown(3))
History = tuple[list[LogRow], Now, Seen | None, float | None, list[Any]]
"""Rows, the object as it is, what was seen before, since when all rows are there; verdicts."""

HISTORIES: dict[str, History] = {
    "one change, nothing known": ([own(3)], present(3), None, None, [True]),
    "one change after a known state": ([own(3)], present(3), seen(2), None, [True]),
    "quick follow-ups": ([own(1), own(2), own(3)], present(3), None, EARLY, [True] * 3),
    "quick follow-ups, some seen": ([own(2), own(3)], present(3), seen(1), None, [True] * 2),
    "follow-ups in one transaction": (
        [row(1, 10, None, shown(1), "create"), row(1.1, 10, shown(1), shown(2))],
        present(2, xid=10),
        None,
        None,
        [True, True],
    ),
    "priorities changed since, without a row": ([own(3)], present(3, xid=99), None, EARLY, [True]),
    "the same, and nothing is covered": ([own(3)], present(3, xid=99), None, None, [None]),
    "the same, after a known state": ([own(3)], present(3, xid=99), seen(2), None, [True]),
    "the object is ahead, and its rows are there": (
        [own(2), own(3), own(4)],
        present(4),
        None,
        EARLY,
        [True] * 3,
    ),
    "the object is ahead of all rows": ([own(2)], present(4), None, None, [None]),
    "a hole": ([own(2), own(4)], present(4), seen(1), EARLY, [None, True]),
    "an update without effect": (
        [row(3.5, 36, shown(3), shown(3))],
        present(3),
        seen(3),
        None,
        [True],
    ),
    "the same about a state that is past": (
        [row(4.5, 46, shown(3), shown(3)), own(4)],
        present(4),
        seen(3),
        None,
        [None, True],
    ),
    "the same, beside a change of another object": (
        [row(3.5, 36, shown(3), shown(3))],
        (present(3)[0], {30, 36}),
        seen(3),
        None,
        [True],
    ),
    "a copy": ([own(3), A_COPY], present(3), seen(2), None, [True, None]),
    "a copy that is read first": ([A_COPY, own(3)], present(3), seen(2), None, [None, True]),
    "a copy when the row was seen": ([A_COPY], present(3), seen(3), None, [None]),
    "a copy of what was not seen": ([A_COPY], present(3), None, None, [None]),
    "a copy of an old state": (
        [row(4000, 400, shown(2), shown(3))],
        present(3),
        None,
        seconds(2000),
        [None],
    ),
    "a copy between two changes": (
        [own(3), A_COPY, own(4)],
        present(4),
        seen(2),
        None,
        [True, None, True],
    ),
    "a copy with another past": (
        [own(3), row(3.1, 35, shown(7), shown(3)), own(4)],
        present(4),
        seen(2),
        None,
        [True, None, True],
    ),
    "a true state with another past": (
        [row(3.1, 35, shown(7), shown(3)), row(3.2, 36, shown(2), shown(7))],
        present(3),
        seen(3),
        None,
        [None, False],
    ),
    "a lie": ([own(3), row(3.1, 35, shown(3), shown(8))], present(3), seen(2), None, [True, False]),
    "a lie about what did not change for long": (
        [row(5000, 500, shown(3), shown(8))],
        present(3),
        None,
        None,
        [False],
    ),
    "a lie between two changes": (
        [own(3), row(3.1, 35, shown(3), shown(8)), own(4)],
        present(4),
        seen(2),
        None,
        [True, False, True],
    ),
    "little that is true": (
        [row(3.1, 35, None, {"modified_at": shown(3)["modified_at"]})],
        present(3),
        seen(3),
        None,
        [False],
    ),
    "a true state with junk in the past": (
        [row(3.1, 35, {"state": "FORGED"}, {**shown(3), "junk": "evil"})],
        present(3),
        seen(3),
        None,
        [None],
    ),
    "text beside a true state": (
        [own(3), row(3.1, 35, shown(2), shown(3), text="x")],
        present(3),
        seen(2),
        None,
        [True, False],
    ),
    "another owner": (
        [row(3.1, 35, shown(2), shown(3, owner_uuid="zzzzz-tpzed-bbbbbbbbbbbbbbb"))],
        present(3),
        seen(3),
        None,
        [False],
    ),
    "a time that is none": (
        [row(3.1, 35, shown(2), shown(3, trash_at="soon"))],
        present(3),
        seen(3),
        None,
        [False],
    ),
    "attributes that are none": ([row(3.1, 35, None, None)], present(3), seen(3), None, [False]),
    "another event type": (
        [row(3.1, 30, None, shown(3), "note")],
        present(3),
        seen(3),
        None,
        [None],
    ),
    "too large, but by the transaction": (
        [row(3, 30, None, None, truncated=True)],
        present(3),
        seen(2),
        None,
        [True],
    ),
    "too large": ([row(3, 31, None, None, truncated=True)], present(3), seen(2), None, [None]),
    "delete of what is there": (
        [row(3.1, 35, shown(3), None, "delete")],
        present(3),
        seen(3),
        None,
        [False],
    ),
    "delete of what was made again": (
        [row(-1, 5, shown(3), None, "delete")],
        present(3),
        None,
        None,
        [None],
    ),
    "delete of what was seen": (
        [row(4, 40, shown(3), None, "delete")],
        GONE,
        seen(3),
        EARLY,
        [True],
    ),
    "change and delete": (
        [own(4), row(5, 50, shown(4), None, "delete")],
        GONE,
        seen(3),
        EARLY,
        [True, True],
    ),
    "a lie before the delete": (
        [row(3.1, 35, shown(3), shown(8)), row(5, 50, shown(3), None, "delete")],
        GONE,
        seen(3),
        EARLY,
        [False, True],
    ),
    "delete of what was never there": (
        [row(4, 40, shown(3), None, "delete")],
        GONE,
        None,
        EARLY,
        [None],
    ),
    "the whole life of what was never there": (
        [own(1), own(2), row(3, 30, shown(2), None, "delete")],
        GONE,
        None,
        EARLY,
        [None] * 3,
    ),
    "delete with another past": (
        [row(4, 40, shown(7), None, "delete")],
        GONE,
        seen(3),
        EARLY,
        [None],
    ),
    "two deletes": (
        [row(4, 40, shown(3), None, "delete"), row(5, 50, shown(3), None, "delete")],
        GONE,
        seen(3),
        EARLY,
        [None, None],
    ),
    "after the delete": (
        [row(6, 60, shown(3), None, "delete"), row(7, 70, shown(3), shown(4))],
        GONE,
        Seen(None, seconds(5)),
        EARLY,
        [False, False],
    ),
}


@pytest.mark.parametrize(
    ("rows", "now", "before", "covered", "verdicts"), HISTORIES.values(), ids=HISTORIES.keys()
)
def test_histories(
    rows: list[LogRow],
    now: Now,
    before: Seen | None,
    covered: float | None,
    verdicts: list[bool | None],
) -> None:
    """Arvados' own rows are true or not known; what is posted is a lie or not known."""
    assert judged(rows, now, before, covered) == verdicts


def test_a_proven_row_says_only_what_was_compared() -> None:
    """By the chain: without the past where none is known; by the transaction: all that it says."""
    junk = {"priority": 7}
    rows = [
        row(2, 20, {**shown(1), **junk}, {**shown(2), **junk}),
        row(3, 30, {**shown(2), **junk}, {**shown(3), **junk}),
    ]
    claims = [Claim.of(one) for one in rows]
    there, own = present(3)

    def told(found: Chain) -> list[dict[str, Any]]:
        return [found.properties(claim) for claim in claims]

    first, last = told(chain(claims, there, None, own, EARLY))
    assert first == {"new_attributes": shown(2)}
    assert last == rows[1].properties
    first, _ = told(chain(claims, there, seen(1), own))
    assert first == {"old_attributes": shown(1), "new_attributes": shown(2)}


STATES = {
    "times to the microsecond": (shown(1), values(1), True),
    "numbers as text": (shown(1, file_count="1"), values(1), True),
    "floats without a fraction": (shown(1, file_count=1.0), values(1), True),
    "truth is no number": (shown(1, is_trashed=0), values(1), False),
    "silence is null": ({k: v for k, v in shown(1).items() if k != "trash_at"}, values(1), True),
    "silence is nothing else": (
        {k: v for k, v in shown(1).items() if k != "name"},
        values(1),
        False,
    ),
    "another millisecond": (
        shown(1),
        values(1, modified_at=NOON + SECOND + timedelta(milliseconds=1)),
        False,
    ),
}


@pytest.mark.parametrize(("claimed", "stored", "same"), STATES.values(), ids=STATES.keys())
def test_states_are_compared_as_values(
    claimed: dict[str, Any], stored: dict[str, Any], same: bool
) -> None:
    """However JSON, Ruby and PostgreSQL write them."""
    assert agree(state_of("collection", claimed), state_of("collection", stored)) is same


@pytest.mark.parametrize("values", [None, {}, [], "x", 1])
def test_what_is_no_state(values: object) -> None:
    """It agrees with nothing, itself included."""
    found = state_of("collection", values)
    assert found is None
    assert not agree(found, found)


def test_numbers_of_transactions_begin_anew() -> None:
    """2^32 - 1 is followed by 3: the copy is the younger one still."""
    genuine = row(3, 2**32 - 1, shown(2), shown(3))
    copy = row(3.1, 5, shown(2), shown(3))
    assert judged([copy, genuine], present(3, xid=99), seen(2)) == [None, True]


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[LogRow], set[str], int, int]:
    """A history of changes in which somebody posts rows that mix true and invented states."""
    changes = draw(st.integers(1, 5))
    genuine = [own(n) for n in range(1, changes + 1)]
    rows = list(genuine)
    for number in range(draw(st.integers(0, 5))):
        # Nobody can post a state before it is there.
        after = draw(st.integers(0, changes))
        known = st.integers(1, after) if after else st.nothing()
        invented = st.integers(50, 55)
        old, new = (draw(st.one_of(known, invented, st.none())) for _ in range(2))
        kind = draw(st.sampled_from(["create", "update", "delete"]))
        at = after + 0.1 + number / 100
        sides = [None if n is None else shown(n) for n in (old, new)]
        rows.append(row(at, 10 * after + 1 + number, sides[0], sides[1], kind))
    begin = draw(st.integers(0, changes))
    shuffled = draw(st.permutations(rows))
    return shuffled, {one.uuid for one in genuine}, changes, begin


@given(stories(), st.booleans(), st.booleans())
def test_no_story_makes_a_lie_true_or_truth_a_lie(
    story: tuple[list[LogRow], set[str], int, int], raw: bool, covered: bool
) -> None:
    """Whatever is posted between the changes, in whatever order it is read, from wherever."""
    rows, genuine, changes, begin = story
    later = [one for one in rows if one.created_at > NOON + (begin + 0.05) * SECOND or begin == 0]
    earlier = seen(begin) if begin else None
    since = EARLY if covered and not begin else None
    now = present(changes, xid=999 if raw else None)
    for one, verdict in zip(later, judged(later, now, earlier, since), strict=True):
        if one.uuid in genuine:
            assert verdict is not False, one
        else:
            sides = [(one.properties or {}).get(f"{age}_attributes") for age in ("old", "new")]
            changes_nothing = one.event_type == "update" and sides[0] == sides[1]
            assert verdict is not True or changes_nothing, one


def test_a_state_is_small() -> None:
    """However much it is made of."""
    found = state_of("collection", shown(1, name="x" * 1_000_000))
    assert isinstance(found, State)
    assert len(found.rest) == 16
