# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Frames that a standard library would read the same way."""

from __future__ import annotations

import json

import pytest
from websockets.frames import Frame, Opcode

from wsproxy.transport import frames
from wsproxy.transport.frames import Message


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_text_frame_is_what_websockets_writes(length: int) -> None:
    """Every length form of RFC 6455 5.2, unmasked."""
    payload = b"x" * length
    assert frames.text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


def test_each_form_of_a_message_is_made_once() -> None:
    """All readers share the very same bytes."""
    message = frames.message({"event": {"name": "é"}})
    assert message.text == '{"event":{"name":"é"}}'.encode()
    assert message.frame is message.frame
    assert message.sse is message.sse
    assert message.sse == b"data: " + message.text + b"\n\n"
    assert len(message) == len(message.text)


def test_json_holds_no_line_end_that_would_cut_a_server_sent_event() -> None:
    """Line ends inside strings are escaped."""
    assert b"\n" not in frames.message({"text": "a\nb\r\nc"}).text
    assert Message(b"{}").frame == b"\x81\x02{}"


def test_an_event_is_one_line_to_any_client() -> None:
    """Also to those that split where Python's splitlines does; the JSON says the same."""
    value = {"text": "".join(map(chr, range(0x3000)))}
    (line, empty) = frames.message(value).sse.decode().splitlines()
    assert not empty
    assert json.loads(line.removeprefix("data: ")) == value
