# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The sealed envelope of callout requests and answers (docs/facts/nats-callout.md 1.4).

Pure. `xkv1`, a nonce of 24 bytes, then a NaCl box between the server's curve key and ours. Without
it an Arvados token would cross the servers' routes in the clear.
"""

from __future__ import annotations

from functools import lru_cache

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from arvados_nats.errors import BadInput
from arvados_nats.service.keys import Kind, Seed, decode_public

_VERSION = b"xkv1"
_SERVERS = 64
"""Whose boxes are kept: to make one costs as much as all else about a sealed login."""


class Envelope:
    """Opens what servers sealed to our key, and seals answers to theirs."""

    def __init__(self, seed: Seed) -> None:
        self._private = PrivateKey(seed.raw)
        self._box = lru_cache(_SERVERS)(self._made)

    def open(self, sealed: bytes, server_xkey: str) -> bytes:
        """What the server with public curve key `server_xkey` (`X…`) sealed; BadInput otherwise.

        A plain request is refused too: a configured key means that servers must use it.
        """
        if not sealed.startswith(_VERSION):
            raise BadInput(
                "the callout request is not sealed; set xkey in the server's auth_callout"
            )
        try:
            return self._box(server_xkey).decrypt(sealed[len(_VERSION) :])
        except (CryptoError, ValueError) as error:
            raise BadInput("the callout request is not sealed to our xkey") from error

    def seal(self, plain: bytes, server_xkey: str) -> bytes:
        """An answer that only this server can read."""
        return _VERSION + bytes(self._box(server_xkey).encrypt(plain))

    def _made(self, server_xkey: str) -> Box:
        kind, raw = decode_public(server_xkey)
        if kind is not Kind.CURVE:
            raise BadInput("the server's xkey is no curve key")
        return Box(self._private, PublicKey(raw))
