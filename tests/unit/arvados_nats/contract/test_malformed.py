# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Bytes that are no UTF-8, or nested too deeply, are bad input wherever JSON is read: msgspec has
other exceptions for them than for bytes that are no JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from arvados_nats.contract import events, log_chunks, queue_entries, subjects, system_log_records
from arvados_nats.errors import BadInput
from arvados_nats.permission_client import (
    grants_messages,
    object_messages,
    run_messages,
    tokens_watch,
)
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1 import requests as requests_v1
from publishers.permissions import token_query
from wsproxy.native_api import reply as native_reply
from wsproxy.native_api.events import EventsRequest
from wsproxy.v0 import messages as messages_v0

ROOT = Path(__file__).parents[4]
CONTAINER = "zzzzz-dz642-000000000000000"
PAYLOADS = {
    "text": b'"\x80"',
    "value": b'{"id": "\x80", "uuid": "\x80", "reason": "\x80", "method": "\x80", "state": "\x80"}',
    "name": b'{"\x80": 1}',
    "list": b"[" * 100_000,
    "dict": b'{"x":' * 100_000,
}
READERS: dict[str, Callable[[bytes], object]] = {
    "event": events.decode,
    "properties": lambda data: events.kept_properties(data, "collection"),
    "change of grants": grants_messages.told,
    "question about grants": grants_messages.question,
    "note about an answer": grants_messages.answered,
    "end of a container": lambda data: log_chunks.parse(subjects.log(CONTAINER, "end"), {}, data),
    "message of v1": messages_v1.decode,
    "snapshot": lambda data: object_messages.decode({}, data),
    "queue entry": lambda data: queue_entries.decode({}, data),
    "run": lambda data: run_messages.decode({}, data),
    "command of v1": requests_v1.decode,
    "command of v0": messages_v0.command,
    "system log record": system_log_records.decode,
    "line of a system log": lambda data: system_log_records.read(data, "h"),
    "dead token": tokens_watch._reason,
    "request for history": lambda data: native_reply.request(data, EventsRequest, "{}"),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_no_reader_of_json_fails_otherwise(
    reader: Callable[[bytes], object], payload: bytes
) -> None:
    """It raises BadInput, or it has no need of what is wrong."""
    try:
        reader(payload)
    except BadInput:
        return


def test_text_that_is_no_utf8_is_bad_input() -> None:
    """What the reader is to look at is told, not passed over."""
    for reader in READERS.values():
        with pytest.raises(BadInput):
            reader(PAYLOADS["text"])


def test_half_a_character_is_bad_input() -> None:
    """Python's text may hold one, and no encoding of it does."""
    for reader in (messages_v1.decode, requests_v1.decode, messages_v0.command):
        with pytest.raises(BadInput):
            reader('{"\ud800": 1}')


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_scopes_that_make_no_sense_allow_nothing(text: str) -> None:
    """And the other tokens of the answer are not lost."""
    assert token_query.scopes_of(text) == ()


def test_nobody_names_only_msgspecs_own_exceptions() -> None:
    """`errors.MALFORMED` has all of them; properties of a row tell them apart."""
    rooms = ("arvados_nats", "authcallout", "publishers", "wsproxy")
    named = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"MsgspecError|msgspec\.DecodeError", path.read_text())
    }
    assert named == {"arvados_nats/errors.py", "arvados_nats/contract/events.py"}
