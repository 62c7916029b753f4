# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Records of system logs: journald's JSON is read as it is, and none is larger than a message."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.contract import system_log_records
from arvados_nats.contract.system_log_records import SystemLogRecord, read
from arvados_nats.errors import BadInput


def record(**fields: Any) -> SystemLogRecord:
    return read(json.dumps(fields).encode(), "h")


def test_what_journald_knows() -> None:
    """Its own fields have a leading underscore; those that say nothing to people are left out."""
    found = record(
        MESSAGE="Started",
        PRIORITY="5",
        SYSLOG_IDENTIFIER="systemd",
        UNIT="crunch.service",
        _SYSTEMD_UNIT="init.scope",
        _PID="1",
        _BOOT_ID="b",
        _CMDLINE="/sbin/init",
        __CURSOR="s=1;i=2",
        __REALTIME_TIMESTAMP="1795588284051028",
        CODE_LINE="7",
    )
    assert found == SystemLogRecord(
        at="2026-11-25T06:31:24.051028Z",
        host="h",
        unit="init.scope",
        priority=5,
        message="Started",
        identifier="systemd",
        pid=1,
        boot="b",
        cursor="s=1;i=2",
        fields={"CODE_LINE": "7"},
    )


@pytest.mark.parametrize(
    ("value", "message", "raw"),
    [
        (None, "", b""),
        ([104, 105], "hi", b""),
        ([104, 255], "h\ufffd", b"h\xff"),
        (["a", "b"], "a\nb", b""),
        ([[104], "b"], "h\nb", b""),
        (7, "7", b""),
        ({"a": 1}, '{"a":1}', b""),
        ([], "", b""),
    ],
)
def test_forms_of_a_message(value: Any, message: str, raw: bytes) -> None:
    """Text, bytes as numbers, several values, nothing."""
    found = record(MESSAGE=value)
    assert (found.message, base64.b64decode(found.message_base64)) == (message, raw)


@pytest.mark.parametrize(
    ("value", "priority"), [("3", 3), ("ERR", 3), (0, 0), ("8", 6), ("", 6), (None, 6), ([51], 3)]
)
def test_priorities(value: Any, priority: int) -> None:
    """Numbers or names; what is none is information."""
    assert record(PRIORITY=value).priority == priority


def test_fields_that_are_no_text() -> None:
    """A program's own fields are kept as they are, bytes as base64."""
    found = record(A=[1, 255], B=["x", [255]], C=None, D=[])
    raw = {"base64": base64.b64encode(b"\xff").decode()}
    assert found.fields == {
        "A": {"base64": base64.b64encode(b"\x01\xff").decode()},
        "B": ["x", raw],
        "C": None,
        "D": [],
    }


@pytest.mark.parametrize("stamp", ["-5", "x", "9" * 30, None, ["1", "2"]])
def test_times_that_are_none(stamp: Any) -> None:
    """The time of reading stands for it, or the epoch; nothing fails."""
    assert record(MESSAGE="m", __REALTIME_TIMESTAMP=stamp).at.endswith("Z")


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b'"text"', b'"\x80"', b"{", b"\xff", b"[" * 9999]
)
def test_what_is_no_record(line: bytes) -> None:
    with pytest.raises(BadInput):
        read(line, "h")


@given(st.binary(max_size=300))
def test_any_line_is_a_record_or_bad_input(line: bytes) -> None:
    """A log is anybody's text."""
    try:
        read(line, "h")
    except BadInput:
        return


@given(
    st.text(max_size=3000), st.dictionaries(st.text(max_size=5), st.text()), st.integers(600, 2500)
)
def test_a_message_is_never_too_large(message: str, fields: dict[str, str], room: int) -> None:
    """What fits is whole; what does not says by how much it is shorter, and keeps its beginning."""
    whole = SystemLogRecord(at="t", host="h", unit="u", priority=1, message=message, fields=fields)
    payload, cut = system_log_records.encode(whole, room)
    found = system_log_records.decode(payload)
    assert len(payload) <= room
    assert message.startswith(found.message)
    if len(msgspec.json.encode(whole)) <= room:
        assert (found, cut) == (whole, 0)
    else:
        assert found.cut_bytes == cut > 0


def test_when_a_cursor_was_written() -> None:
    """journald's cursors tell; others do not."""
    cursor = "s=45c5;i=1;b=3875;m=3d9f;t=66113f9d56e54;x=cee6"
    assert system_log_records.cursor_time(cursor) == "2026-11-25T06:31:24.051028Z"
    assert system_log_records.cursor_time("t=zz") == system_log_records.cursor_time("") == ""
