# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What requirements/ says: each package with its version and its hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "requirements"
_PIN = re.compile(r"^(\S+?)==(\S+)(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Pin:
    """One package: its version, and how many files of it are known by their hashes."""

    version: str
    hashes: int
    asked: bool  # by pyproject.toml itself


def name_of(text: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", text).lower()


def pinned(name: str) -> dict[str, Pin]:
    """The packages of one file."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return {
        name_of(found[1]): Pin(
            version=found[2],
            hashes=len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", found[3])),
            asked="pyproject.toml" in found[3],
        )
        for found in _PIN.finditer(text)
    }
