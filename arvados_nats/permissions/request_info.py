# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who sent a request that crossed from account REQUESTS: the header that the server writes.

Pure. The import of `arvados.api.>` is shared, so the server adds `Nats-Request-Info` with the
account and the user name that the callout gave (docs/facts/nats-callout.md 1.7; 3, row 16). It
replaces a header of that name from the client; one that differs in case is a forgery and is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from arvados_nats.contract import accounts, subjects
from arvados_nats.errors import MALFORMED, BadInput
from arvados_nats.permissions.rule import ALL

_HEADER = "Nats-Request-Info"


class _Info(msgspec.Struct):
    acc: str = ""
    user: str = ""


_FINGERPRINT = re.compile(r"[0-9a-z]{1,32}")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who stands behind a connection, as its NATS user name says.

    `fingerprint` stands for what it was let in with: a connection whose fingerprint is not what its
    holder would get now is cut, whichever replica let it in.
    """

    user_uuid: str
    token_uuid: str
    fingerprint: str

    @property
    def name(self) -> str:
        """The NATS user name; it holds no secret, since the servers log it."""
        return f"{self.user_uuid}/{self.token_uuid}/{self.fingerprint}"


def inbox_prefix(user_uuid: str, token_uuid: str, scopes: Sequence[str]) -> str:
    """Where answers to this token come: the user's inbox, which outlives a token that is renewed.

    A scoped token has one of its own: it may not read what its owner's other tokens are answered.
    """
    return subjects.inbox_prefix(user_uuid if ALL in scopes else token_uuid)


def holder(name: str) -> Holder | None:
    """Who a NATS user name written by the callout stands for; None for any other name."""
    parts = name.split("/")
    if len(parts) != 3 or not _FINGERPRINT.fullmatch(parts[2]):
        return None
    if not (subjects.is_uuid(parts[0]) and subjects.is_uuid(parts[1])):
        return None
    return Holder(*parts)


def sender(headers: Mapping[str, str]) -> Holder:
    """Who in REQUESTS sent a request; BadInput if the server did not vouch for it."""
    named = [name for name in headers if name.strip().lower() == _HEADER.lower()]
    if named != [_HEADER]:
        raise BadInput("the request does not say who sent it, or says it twice")
    try:
        info = msgspec.json.decode(headers[_HEADER], type=_Info)
    except MALFORMED as error:
        raise BadInput("the request's sender cannot be read") from error
    found = holder(info.user)
    if info.acc != accounts.REQUESTS or found is None:
        raise BadInput("the request did not come from a user of the facility")
    return found
