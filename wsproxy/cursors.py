# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Opaque places to resume from, which nobody but this cluster's wsproxy can make.

Pure. A cursor is one value: what it is about, which life of the stream, and how far. The key is the
same on all replicas, so any of them continues what another began; the authentication code keeps a
made-up cursor from being a question about things its maker may not read (docs/facts/realtime.md
6.2).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from arvados_nats.errors import MALFORMED, BadInput
from wsproxy.events.cursor import EventCursor
from wsproxy.logs.place import LogPlace

_VERSION = 1
_MAC_BYTES = 10
_MAX_LENGTH = 16 * 1024


class LogCursor(msgspec.Struct, frozen=True, tag="l", array_like=True):
    """The next byte of each log file of a container; `done`: no byte will follow, of anything.

    `former`: the same of earlier attempts of a request whose end is not known yet, by container.
    """

    container: str
    places: dict[str, LogPlace]
    done: bool = False
    former: dict[str, dict[str, LogPlace]] = msgspec.field(default_factory=dict)


Cursor = EventCursor | LogCursor

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Cursor] = msgspec.msgpack.Decoder(Cursor)


class Codec:
    """Writes cursors with one key, of at least 16 bytes; reads those of others, too: of the key
    before it, and of the next one, which another replica may have taken up already."""

    def __init__(self, key: bytes, *others: bytes) -> None:
        self.renew(key, *others)

    def renew(self, key: bytes, *others: bytes) -> None:
        """Go on with these."""
        self._keys = tuple(map(_sealing, (key, *others)))

    def encode(self, cursor: Cursor) -> str:
        """The cursor as URL-safe text."""
        body = bytes((_VERSION,)) + _encoder.encode(cursor)
        return base64.urlsafe_b64encode(_mac(self._keys[0], body) + body).rstrip(b"=").decode()

    def events(self, text: str) -> EventCursor:
        """The cursor of events in a text; BadInput if it is none of ours."""
        cursor = self._decode(text)
        if not isinstance(cursor, EventCursor):
            raise BadInput("not a cursor of events")
        return cursor

    def log(self, text: str) -> LogCursor:
        """The cursor of logs in a text; BadInput if it is none of ours."""
        cursor = self._decode(text)
        if not isinstance(cursor, LogCursor):
            raise BadInput("not a cursor of logs")
        return cursor

    def _decode(self, text: str) -> Cursor:
        try:
            if len(text) > _MAX_LENGTH:
                raise ValueError("too long")
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            known = [hmac.compare_digest(mac, _mac(key, body)) for key in self._keys]
            if not any(known) or body[:1] != bytes((_VERSION,)):
                raise ValueError("not ours")
            return _decoder.decode(body[1:])
        except (*MALFORMED, ValueError, binascii.Error) as error:
            raise BadInput("not a cursor of this cluster") from error


def _sealing(key: bytes) -> bytes:
    return hashlib.blake2b(key, person=b"arvados-cursor", digest_size=32).digest()


def _mac(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, key=key, digest_size=_MAC_BYTES).digest()
