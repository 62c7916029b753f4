# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The keys of the callout service, as their files hold them now.

While `issuer` and `xkey` are replaced, which happens together, some servers know the former pair
and some the new one. The key that a server has sealed its question to tells which, and the answer
is signed by the issuer that this server believes: nobody is refused meanwhile.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from arvados_nats.errors import BadInput, ConfigError
from arvados_nats.service import files, keys, machine_keys
from arvados_nats.service.keys import FORMER, Seed
from authcallout.nkey_jwt import Signer
from authcallout.xkey import Envelope

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """What a server is spoken to with."""

    envelope: Envelope
    signer: Signer


class Keyring:
    """The seeds in a folder; `ConfigError` where there are none at the start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = files.state([folder])
        self._pairs, self._machines = self._read()

    def open(self, sealed: bytes, server_xkey: str) -> tuple[bytes, Pair]:
        """What a server has sealed, and what to answer it with; BadInput if it is not for us."""
        self._follow()
        for pair in self._pairs[:-1]:
            try:
                return pair.envelope.open(sealed, server_xkey), pair
            except BadInput:
                continue
        last = self._pairs[-1]
        return last.envelope.open(sealed, server_xkey), last

    def made_for_a_machine(self, key: str) -> bool:
        """Whether a machine's key was made from our seed, or from the one before it."""
        self._follow()
        return any(machine_keys.is_of(seed, key) for seed in self._machines)

    def _follow(self) -> None:
        if (state := files.state([self._folder])) == self._state:
            return
        self._state = state
        try:
            self._pairs, self._machines = self._read()
        except ConfigError as error:
            logger.warning(
                "seeds cannot be read again; the former ones stay",
                extra={"action": "settings.unreadable", "error": str(error)},
            )

    def _read(self) -> tuple[tuple[Pair, ...], tuple[Seed, ...]]:
        pairs = [Pair(Envelope(keys.load(self._folder, "xkey")), self._signer("issuer"))]
        if self._there(f"xkey{FORMER}") and self._there(f"issuer{FORMER}"):
            former = Envelope(keys.load(self._folder, f"xkey{FORMER}"))
            pairs.append(Pair(former, self._signer(f"issuer{FORMER}")))
        machines = filter(self._there, ("system-logs", f"system-logs{FORMER}"))
        return tuple(pairs), tuple(keys.load(self._folder, name) for name in machines)

    def _signer(self, name: str) -> Signer:
        return Signer(keys.load(self._folder, name))

    def _there(self, name: str) -> bool:
        return bool(files.read(self._folder / f"{name}.nk"))
