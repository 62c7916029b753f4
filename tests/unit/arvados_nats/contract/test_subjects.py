# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Subject names: what users choose freely never makes a subject that means something else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.contract import subjects

CONTAINER = "zzzzz-dz642-000000000000001"
GROUP = "zzzzz-j7d0g-000000000000001"
UNKNOWN = "zzzzz-xxxxx-000000000000001"


@pytest.mark.parametrize(
    ("uuid", "event_type", "subject"),
    [
        (CONTAINER, "update", f"arvados.events.container.{CONTAINER}.update"),
        (GROUP, "create", f"arvados.events.group.{GROUP}.create"),
        (UNKNOWN, "update", f"arvados.events.other.{UNKNOWN}.update"),
        (None, None, "arvados.events.other.none.other"),
        ("not a uuid", "update", "arvados.events.other.none.update"),
        (CONTAINER, "a.b", f"arvados.events.container.{CONTAINER}.other"),
        (CONTAINER, "UPDATE", f"arvados.events.container.{CONTAINER}.other"),
        (CONTAINER, "x" * 33, f"arvados.events.container.{CONTAINER}.other"),
        (CONTAINER, "", f"arvados.events.container.{CONTAINER}.other"),
        (f"{CONTAINER}\n", "update", "arvados.events.other.none.update"),
    ],
)
def test_event_subjects(uuid: str | None, event_type: str | None, subject: str) -> None:
    """A posted row's words stand in the subject only if they fit (docs/facts/arvados.md 0.3)."""
    assert subjects.event(uuid, event_type) == subject


@given(uuid=st.none() | st.text(), event_type=st.none() | st.text(), file=st.text())
def test_subjects_are_always_legal(uuid: str | None, event_type: str | None, file: str) -> None:
    """Whatever is posted, each token has only safe characters and the number of tokens is fixed."""
    made = {
        subjects.event(uuid, event_type): 5,
        subjects.log(CONTAINER, file): 4,
        subjects.live_event(GROUP, GROUP, CONTAINER, uuid, event_type): 9,
        subjects.live_log(GROUP, GROUP, GROUP, CONTAINER, file): 8,
    }
    for subject, tokens in made.items():
        parts = subject.split(".")
        assert len(parts) == tokens
        assert all(part and part.replace("-", "").replace("_", "").isascii() for part in parts)
        assert not set(subject) & set("*> \t\r\n")


def test_file_tokens() -> None:
    """Dots become underscores; the true name travels in a header."""
    assert subjects.file_token("stdout.txt") == "stdout_txt"
    assert subjects.file_token("") == "_"


def test_stored_subjects() -> None:
    """The subject of a republished message names the stream's subject."""
    stored = subjects.stored(subjects.log(CONTAINER, "stderr.txt"))
    assert stored == f"arvados.stored.logs.{CONTAINER}.stderr_txt"


def test_every_kind_has_a_uuid_of_its_own() -> None:
    """No two kinds share an infix, a name or a path."""
    for field in ("infix", "name", "path", "arvados"):
        values = [getattr(kind, field) for kind in subjects.KINDS]
        assert len(values) == len(set(values))
        assert all(values)
