# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The key with which one machine sends its system log: its name, proved by the seed `system-logs`.

Pure. Who has the seed makes the key of any machine, and the callout service checks one without a
list of machines. A key lets in as that machine alone; a new seed makes all keys worthless.
"""

from __future__ import annotations

import hashlib
import hmac

from arvados_nats.contract import subjects
from arvados_nats.service.keys import Seed

_PREFIX = "machine"


def make(seed: Seed, host: str) -> str:
    """The key of a machine, for the file `system-logs.nk` on it."""
    name = subjects.file_token(host)
    proof = hmac.new(seed.raw, f"arvados-nats {_PREFIX} {name}".encode(), hashlib.sha256)
    return f"{_PREFIX}/{name}/{proof.hexdigest()}"


def named(text: str) -> str | None:
    """The machine that a key names, by the token in its subjects; None for what is no key."""
    parts = text.split("/")
    fits = len(parts) == 3 and parts[0] == _PREFIX and subjects.file_token(parts[1]) == parts[1]
    return parts[1] if fits else None


def is_of(seed: Seed, text: str) -> bool:
    """Whether a key was made with this seed."""
    host = named(text)
    return host is not None and hmac.compare_digest(make(seed, host).encode(), text.encode())
