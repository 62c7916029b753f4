# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which lines of a log are wanted: those of a time, those with a text in them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from arvados_nats.commands.log_lines.merge import Line, stamp
from arvados_nats.commands.log_lines.output import without_stamp
from arvados_nats.commands.terminal_rows import tokens

_AGO = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@dataclass(frozen=True, slots=True)
class Choice:
    """A line without a time stamp has that of the line before it, in its file."""

    since: datetime | None = None
    until: datetime | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def all(self) -> bool:
        """Whether every line is wanted."""
        return self == EVERY

    def has(self, line: Line) -> bool:
        """Whether this line is wanted."""
        if self.since and line.key < _key(self.since):
            return False
        if self.until and line.key > _key(self.until):
            return False
        if self.pattern is None:
            return True
        text = without_stamp(line.data.removesuffix(b"\n")).decode(errors="replace")
        return self.pattern.search(tokens.without_sequences(text)) is not None


EVERY = Choice()


def _key(time: datetime) -> bytes:
    return stamp(time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode())


def moment(text: str, now: datetime) -> datetime:
    """A time of day as ISO 8601 has it, here if no zone is given; or how long ago: 1h30m."""
    found = _AGO.fullmatch(text)
    if found and text:
        days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
        return now - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    return datetime.fromisoformat(text).astimezone(UTC)
