# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Grants travel whole, in parts of a size, and their versions tell content and nothing else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.errors import BadInput, Unavailable
from arvados_nats.permission_client import grants_messages
from arvados_nats.permission_client.grants_messages import (
    FAILED,
    PART,
    PART_BYTES,
    Assembly,
    GrantsAnswer,
)
from arvados_nats.permissions.grants import ClusterState, Grants

ME = "zzzzz-tpzed-000000000000me0"
UUIDS = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=15, max_size=15).map(
    lambda tail: f"zzzzz-j7d0g-{tail}"
)
GRANTS = st.builds(
    Grants,
    st.just(ME),
    st.booleans(),
    st.booleans(),
    st.dictionaries(UUIDS, st.integers(1, 31), max_size=30),
    st.builds(lambda visible: ClusterState(role_groups_visible=visible), st.booleans()),
)


def answer(grants: Grants) -> GrantsAnswer:
    version = grants_messages.grants_version(grants)
    users = [grants_messages.user_grants("zzzzz-tpzed-000000000asked0", grants, version)]
    return GrantsAnswer(7, 1.5, grants.cluster.role_groups_visible, users, ["same"])


def carried(found: GrantsAnswer) -> GrantsAnswer:
    assembly, got = Assembly(), None
    for headers, piece in grants_messages.parts(found):
        assert got is None
        got = assembly.add(headers, piece)
    assert got is not None
    return got


@given(GRANTS)
def test_grants_arrive_as_they_were_sent(grants: Grants) -> None:
    """What is received decides as what was read."""
    got = carried(answer(grants))

    state = ClusterState(role_groups_visible=got.role_groups_visible)
    received = grants_messages.received(got.users[0], state, got.generation)
    assert received == msgspec.structs.replace(grants, generation=7)
    assert got.users[0].version == grants_messages.grants_version(received)


@given(GRANTS, GRANTS)
def test_versions_are_equal_where_content_is(one: Grants, other: Grants) -> None:
    """Order and generation do not count; everything else does."""
    turned = msgspec.structs.replace(
        one,
        targets=dict(reversed(one.targets.items())),
        generation=9,
    )

    assert grants_messages.grants_version(turned) == grants_messages.grants_version(one)
    assert (grants_messages.grants_version(one) == grants_messages.grants_version(other)) == (
        one == other
    )


def test_long_answers_are_cut_into_parts() -> None:
    """No part is larger than fits a message with ease; all are needed, in order."""
    targets = {f"zzzzz-j7d0g-{n * 7919 % 10**15:015x}": n % 31 + 1 for n in range(200_000)}
    found = answer(Grants(ME, targets=targets))
    pieces = grants_messages.parts(found)

    assert len(pieces) > 1
    assert max(len(piece) for _, piece in pieces) <= PART_BYTES
    assert carried(found) == found
    with pytest.raises(BadInput):
        Assembly().add(*pieces[1])


@pytest.mark.parametrize(
    ("headers", "payload", "error"),
    [
        ({"Status": "503"}, b"", Unavailable),
        ({FAILED: "PostgreSQL: no"}, b"", Unavailable),
        ({}, b"", BadInput),
        ({PART: "1/1"}, b"not packed", BadInput),
        ({PART: "2/2"}, b"", BadInput),
    ],
)
def test_what_is_no_answer_is_an_error(
    headers: dict[str, str], payload: bytes, error: type[Exception]
) -> None:
    """Nobody there, a publisher at a loss, or something else on the subject."""
    with pytest.raises(error):
        Assembly().add(headers, payload)


def test_what_is_no_question_is_bad_input() -> None:
    """The publisher drops it and goes on."""
    for payload in (b"", b"[]", b'{"users": 7}'):
        with pytest.raises(BadInput):
            grants_messages.question(payload)
    with pytest.raises(BadInput):
        grants_messages.answered(b"{}")
