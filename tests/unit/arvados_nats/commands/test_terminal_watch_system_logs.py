# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which system log records are wanted, and how a person sees one."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from arvados_nats.commands.watch.system_logs import RecordSelection, lines
from arvados_nats.contract.system_log_records import SystemLogRecord

RECORD = SystemLogRecord(
    at="2026-01-02T03:04:05.000006Z",
    host="node1.example.com",
    unit="sshd.service",
    priority=6,
    message="Accepted publickey",
    identifier="sshd",
    pid=12,
)


def changed(**fields: Any) -> SystemLogRecord:
    return msgspec.structs.replace(RECORD, **fields)


@dataclass(frozen=True, slots=True)
class Case:
    """A filter, the subjects it reads, and whether `RECORD` is wanted."""

    wanted: RecordSelection
    subject: str
    takes: bool = True


CASES = {
    "everything": Case(RecordSelection(), "arvados.syslog.*.*"),
    "host": Case(RecordSelection(host="node1.example.com"), "arvados.syslog.node1_example_com.*"),
    "another host with the same token": Case(
        RecordSelection(host="node1_example.com"), "arvados.syslog.node1_example_com.*", takes=False
    ),
    "hosts": Case(RecordSelection(host="node[0-9].*"), "arvados.syslog.*.*"),
    "unit": Case(RecordSelection(units=("sshd.service",)), "arvados.syslog.*.sshd_service"),
    "unit without its suffix": Case(RecordSelection(units=("sshd",)), "arvados.syslog.*.*"),
    "units": Case(RecordSelection(units=("cron.service", "ssh*")), "arvados.syslog.*.*"),
    "another unit": Case(
        RecordSelection(units=("ssh.service",)), "arvados.syslog.*.ssh_service", False
    ),
    "as bad": Case(RecordSelection(priority=6), "arvados.syslog.*.*"),
    "worse only": Case(RecordSelection(priority=5), "arvados.syslog.*.*", takes=False),
    "host and unit": Case(
        RecordSelection(host="node1.example.com", units=("sshd.service",)),
        "arvados.syslog.node1_example_com.sshd_service",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_filters(case: Case) -> None:
    """As narrow as subjects allow, and exact in what is shown."""
    assert case.wanted.subject == case.subject
    assert case.wanted.takes(RECORD) is case.takes


def test_a_record_is_one_line() -> None:
    """Time, host, unit, program, message."""
    assert list(lines(RECORD)) == [
        "2026-01-02T03:04:05.000006Z node1.example.com sshd.service sshd[12]: Accepted publickey"
    ]


@pytest.mark.parametrize(("priority", "shown"), [(0, " emerg: x"), (4, " warning: x"), (5, ": x")])
def test_what_is_bad_is_named(priority: int, shown: str) -> None:
    """Warnings and worse."""
    assert next(lines(changed(priority=priority, message="x"))).endswith(shown)


def test_further_lines_are_indented() -> None:
    """None of them can be taken for a record, whatever it says."""
    assert list(lines(changed(message=f"Traceback\n{next(lines(RECORD))}\n")))[1:] == [
        f"    {next(lines(RECORD))}"
    ]


@pytest.mark.parametrize("field", ["message", "identifier", "unit", "host"])
def test_nothing_acts_on_the_terminal(field: str) -> None:
    """Any program writes to the journal, under any name."""
    shown = "".join(lines(changed(**{field: "a\x1b]0;title\x07b\x1b[31mc\rd\u202ee"})))
    assert shown.isprintable()
    assert "\x1b" not in shown


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    """From the bytes themselves."""
    raw = base64.b64encode(b"caf\xe9").decode()
    assert next(lines(changed(message="caf\ufffd", message_base64=raw))).endswith(": caf\\xe9")


def test_what_was_left_out_is_told() -> None:
    """A record too large for a message says how much of it is missing."""
    assert list(lines(changed(cut_bytes=99)))[1:] == ["    (99 bytes of this record were left out)"]
