# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the image holds, installed on this machine by `.ci/image`, and how a container starts it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.chart.rendered import ROOT

CONTAINERFILE = ROOT / "Containerfile"
_PREFIX = "/opt/arvados-nats"


@dataclass(frozen=True)
class Image:
    """The Containerfile's last stage, with another prefix."""

    prefix: Path

    @property
    def environment(self) -> dict[str, str]:
        """What its ENV says, and nothing of this process's own."""
        last = CONTAINERFILE.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
        block = re.search(r"^ENV ((?:.*\\\n)*.*)$", last, re.MULTILINE)
        assert block is not None
        told = dict(word.split("=", 1) for word in block[1].replace("\\\n", " ").split())
        told["PATH"] = told["PATH"].replace(_PREFIX, str(self.prefix)).replace("$PATH", os.defpath)
        return told

    @property
    def program(self) -> Path:
        """The entry point."""
        return self.prefix / "bin" / "arvados-nats"

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in an empty environment, from the root folder."""
        return subprocess.run(
            [self.program, *words], cwd="/", env=self.environment, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip

    def files(self) -> dict[Path, float]:
        """Every file, with the time of its last change."""
        return {path: path.lstat().st_mtime for path in self.prefix.rglob("*")}


ABSENT = "ARVADOS_NATS_IMAGE is unset: run make chart, or name the folder that .ci/image made"


def find() -> Image | None:
    """What the Makefile has installed for this run; it says where."""
    prefix = os.environ.get("ARVADOS_NATS_IMAGE")
    return Image(Path(prefix).resolve()) if prefix else None
