# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Log lines as JSON, an object for each: for scripts. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import msgspec

from arvados_nats.commands.log_lines.merge import Line, stamp
from arvados_nats.commands.log_lines.output import without_stamp


class JsonOutput:
    """`text` is the line without time stamp and line end, `base64` one that is not UTF-8."""

    def __init__(self) -> None:
        self._process = self._container = ""

    def turn(self, process: str, container: str) -> bytes:
        """Whose lines follow."""
        self._process, self._container = process, container
        return b""

    def render(self, lines: Iterable[Line]) -> bytes:
        """The objects of these lines."""
        return b"".join(msgspec.json.encode(self._object(line)) + b"\n" for line in lines)

    def _object(self, line: Line) -> dict[str, str]:
        told = {"process": self._process} if self._process else {}
        told |= {"container": self._container, "file": line.file}
        if time := stamp(line.data):
            told["time"] = time.decode()
        content = without_stamp(line.data.removesuffix(b"\n"))
        try:
            return {**told, "text": content.decode()}
        except UnicodeDecodeError:
            return {**told, "base64": base64.b64encode(content).decode()}

    def part(self) -> bytes:
        """Objects need no parting."""
        return b""

    def close(self) -> bytes:
        """Nothing is held back."""
        return b""
