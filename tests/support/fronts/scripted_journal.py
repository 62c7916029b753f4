# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A journal as a folder of lines, and a program called journalctl that prints it.

For what a real journald does not do when it is told to, and for machines without one: the program
follows the file `lines`, begins where `--cursor` says or with the next line that is there, and
fails as told by the files `end` and `refuse`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_PROGRAM = """#!{python}
import json, os, sys, time
folder = {folder!r}
with open(folder + "/started", "a") as started:
    started.write(" ".join(sys.argv[1:]) + "\\n")
begin = next((a.partition("=")[2] for a in sys.argv if a.startswith("--cursor=")), "")
if begin and os.path.exists(folder + "/refuse"):
    sys.exit("Failed to seek to cursor: Invalid argument")


def number(line):
    try:
        return int(json.loads(line)["__CURSOR"].rpartition("i=")[2], 16)
    except (ValueError, TypeError):
        return 0


def content():
    with open(folder + "/lines") as lines:
        return lines.read()


first = int(begin.rpartition("i=")[2] or "0", 16)
shown = 0
for line in content().splitlines(keepends=True):
    if number(line) >= first:
        break
    shown += len(line)
while True:
    ending = os.path.exists(folder + "/end")
    there = content()
    sys.stdout.write(there[shown:])
    sys.stdout.flush()
    shown = len(there)
    if ending:
        os.remove(folder + "/end")
        sys.exit("journalctl was told to end")
    time.sleep(0.02)
"""


class ScriptedJournal:
    """Its files are in `folder`; `folder/bin` belongs before the others in PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        program = self.programs / "journalctl"
        program.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
        (folder / "lines").touch()

    @property
    def starts(self) -> list[str]:
        """The arguments of each start of the program."""
        started = self._folder / "started"
        return started.read_text().splitlines() if started.exists() else []

    def write(self, *messages: str) -> None:
        """A record of each."""
        for message in messages:
            self._count += 1
            self.print(json.dumps(self._record(message)) + "\n")

    def _record(self, message: str) -> dict[str, Any]:
        return {
            "__CURSOR": f"s=0f;i={self._count:x}",
            "__REALTIME_TIMESTAMP": str(1_800_000_000_000_000 + self._count),
            "MESSAGE": message,
            "SYSLOG_IDENTIFIER": "test",
        }

    def print(self, text: str) -> None:
        """Bytes as they come out of the program, a record or not."""
        with (self._folder / "lines").open("a") as lines:
            lines.write(text)

    def rotate(self, keep: int) -> None:
        """Only the last `keep` lines are there from now on."""
        lines = (self._folder / "lines").read_text().splitlines(keepends=True)
        new = self._folder / "new"
        new.write_text("".join(lines[len(lines) - keep :]))
        os.replace(new, self._folder / "lines")

    def end(self) -> None:
        """The program prints what there is and ends with an error, once."""
        (self._folder / "end").touch()

    def refuse_cursors(self) -> None:
        """The program fails whenever it is given a cursor."""
        (self._folder / "refuse").touch()
