# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""One record of a machine's system log: what travels, and how journald's own form is read.

Pure. A record is one line of JSON as `journalctl -o json --all` prints it (systemd's "Journal JSON
Format"): values are text, a list of numbers where the bytes are no UTF-8, a list of those where a
field stands several times, or null. Other programs may use the same names in lower case. Of the
fields that journald adds itself (`_…`) only those that people ask for are kept; what the program
said itself is kept whole.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from arvados_nats.errors import MALFORMED, BadInput

PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""Names of syslog's priorities; the place is the number, and 0 is the worst."""

_PLAIN = frozenset({"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "UNIT", "PID"})
_UNITS = ("_SYSTEMD_UNIT", "UNIT", "_SYSTEMD_USER_UNIT", "SYSLOG_IDENTIFIER", "_COMM")
_CUT_MARK = 64


class SystemLogRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record. `at` is UTC, RFC 3339; `priority` 0 to 7.

    Where the message is no UTF-8, `message` has U+FFFD in it and `message_base64` the bytes. Of a
    record too large for one message, `cut_bytes` tells how much of it was left out.
    """

    at: str
    host: str
    unit: str
    priority: int
    message: str
    message_base64: str = ""
    identifier: str = ""
    pid: int = 0
    boot: str = ""
    cursor: str = ""
    cut_bytes: int = 0
    fields: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(SystemLogRecord)


def encode(record: SystemLogRecord, max_bytes: int) -> tuple[bytes, int]:
    """The payload of a message, at most `max_bytes` long, and by how many bytes it was shortened.

    Of a record that is larger, its own fields go first, then the end of its message.
    """
    payload = msgspec.json.encode(record)
    if len(payload) <= max_bytes:
        return payload, 0
    whole = len(payload)
    short = msgspec.structs.replace(record, fields={}, message_base64="", cut_bytes=whole)
    room = max_bytes - len(msgspec.json.encode(msgspec.structs.replace(short, message="")))
    message = _fitting(record.message, max(0, room - _CUT_MARK))
    short = msgspec.structs.replace(short, message=message)
    cut = whole - len(msgspec.json.encode(short))
    return msgspec.json.encode(msgspec.structs.replace(short, cut_bytes=cut)), cut


def _fitting(text: str, room: int) -> str:
    """The beginning of `text` whose JSON takes at most `room` bytes."""
    text = text[:room]
    while (size := len(msgspec.json.encode(text))) > room and text:
        text = text[: min(len(text) - 1, len(text) * room // size)]
    return text


def decode(payload: bytes) -> SystemLogRecord:
    """The record in a message; BadInput if it is none."""
    try:
        return _decoder.decode(payload)
    except MALFORMED as error:
        raise BadInput(f"not a system log record: {error}") from error


def read(line: bytes, host: str) -> SystemLogRecord:
    """The record in one line of JSON; BadInput if there is none. `host` names this machine."""
    try:
        fields = msgspec.json.decode(line)
    except MALFORMED as error:
        raise BadInput(f"not a line of JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadInput("not a JSON object")
    named = {
        name if name.startswith("_") else name.upper(): value for name, value in fields.items()
    }
    message, raw = _message(named.get("MESSAGE"))
    return SystemLogRecord(
        at=_at(named),
        host=host,
        unit=next((unit for name in _UNITS if (unit := _text(named.get(name)))), ""),
        priority=_priority(named.get("PRIORITY")),
        message=message,
        message_base64=raw,
        identifier=_text(named.get("SYSLOG_IDENTIFIER")),
        pid=_number(named.get("_PID") or named.get("PID")),
        boot=_text(named.get("_BOOT_ID")),
        cursor=_text(named.get("__CURSOR")),
        fields={
            name: _value(value)
            for name, value in named.items()
            if not name.startswith("_") and name not in _PLAIN
        },
    )


def cursor_time(cursor: str) -> str:
    """When the record with this journald cursor was written, empty if the cursor does not tell."""
    for part in cursor.split(";"):
        name, _, value = part.partition("=")
        if name == "t":
            try:
                return _rfc3339(int(value, 16))
            except ValueError:
                return ""
    return ""


def _bytes(value: Any) -> bytes | None:
    """Bytes that journald shows as a list of numbers."""
    if isinstance(value, list) and all(isinstance(n, int) and 0 <= n < 256 for n in value):
        return bytes(value)
    return None


def _message(value: Any) -> tuple[str, str]:
    raw = _bytes(value) if value else None
    if raw is None:
        return _text(value), ""
    text = raw.decode(errors="replace")
    return text, "" if text.encode() == raw else base64.b64encode(raw).decode()


def _text(value: Any) -> str:
    """A field as text; of several values, all of them."""
    if value is None:
        return ""
    if isinstance(value, list):
        raw = _bytes(value)
        if raw is not None:
            return raw.decode(errors="replace")
        return "\n".join(map(_text, value))
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _value(value: Any) -> Any:
    """A program's own field; bytes that are no text as `{"base64": …}`."""
    raw = _bytes(value) if value else None
    if raw is not None:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw).decode()}
    return [_value(item) for item in value] if isinstance(value, list) else value


def _number(value: Any) -> int:
    try:
        return int(_text(value))
    except ValueError:
        return 0


def _priority(value: Any) -> int:
    text = _text(value).lower()
    if text in PRIORITIES:
        return PRIORITIES.index(text)
    return int(text) if text in set("01234567") else PRIORITIES.index("info")


def _at(fields: Mapping[str, Any]) -> str:
    for name in ("_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"):
        if (microseconds := _number(fields.get(name))) > 0:
            return _rfc3339(microseconds)
    return _rfc3339(time.time_ns() // 1000)


def _rfc3339(microseconds: int) -> str:
    seconds, rest = divmod(microseconds, 1_000_000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"
