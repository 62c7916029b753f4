# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What we answer a NATS server: a user JWT, or why not (docs/facts/nats-callout.md 1.2, 1.3).

Pure. The server refuses a login for any fault in the answer, so every subject is checked before it
is signed. Both sides are always written out: a side left empty would be unrestricted. There is no
`nbf`, since the server judges it on its own clock without leeway, and `exp` is hours ahead: it is a
backstop, never the way to take a permission away.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass

from arvados_nats.contract import accounts
from authcallout.callout_request import CalloutRequest
from authcallout.nkey_jwt import Signer

_SUBJECT = re.compile(r"(?:[A-Za-z0-9_$-]+|\*)(?:\.(?:[A-Za-z0-9_$-]+|\*))*(?:\.>)?")
_ACCOUNTS = (accounts.USERS, accounts.REQUESTS, accounts.SENDERS, accounts.ARVADOS)
_UNLIMITED = -1
_LIFETIME = 8 * 3600.0
_JITTER = 2 * 3600.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What a connection gets: its account, its name there, and subjects for each direction.

    `name` is shown by the server in its logs and lists: never a token (docs/facts/nats.md).
    """

    account: str
    name: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    publish_denied: tuple[str, ...] = ()
    """What may not be published although `publish` covers it."""
    payload: int = _UNLIMITED
    """Bytes of the largest message it may publish; nats-server 2.15.1 goes by the account's and
    the stream's alone."""
    left_out: int = 0
    """Patterns of the user that are too many for a login, so it gets none of them."""

    def __post_init__(self) -> None:
        if self.account not in _ACCOUNTS:
            raise ValueError(f"no user may be placed in account {self.account}")


def admit(
    request: CalloutRequest, admission: Admission, signer: Signer, *, until: float | None
) -> bytes:
    """The signed answer that lets the connection in, at the latest until `until` (Unix time)."""
    now = time.time()  # noqa: TID251  (nats-server compares with its own clock)
    expires = now + _LIFETIME + random.uniform(0, _JITTER)
    user = signer.sign(
        {
            "sub": request.user_nkey,
            "aud": admission.account,
            "name": admission.name,
            "exp": int(expires if until is None else max(min(expires, until), now + 1)),
            "nats": {
                "type": "user",
                "version": 2,
                "pub": _side(admission.publish, admission.publish_denied),
                "sub": _side(admission.subscribe),
                "subs": _UNLIMITED,
                "data": _UNLIMITED,
                "payload": admission.payload,
            },
        }
    )
    return _answer(request, signer, {"jwt": user})


def refuse(request: CalloutRequest, reason: str, signer: Signer) -> bytes:
    """The signed answer that keeps the connection out; the reason reaches the server's log only."""
    return _answer(request, signer, {"error": reason})


def _answer(request: CalloutRequest, signer: Signer, body: dict[str, str]) -> bytes:
    return signer.sign(
        {
            "sub": request.user_nkey,
            "aud": request.server_id,
            "nats": {"type": "authorization_response", "version": 2, **body},
        }
    ).encode()


def _side(subjects: tuple[str, ...], denied: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """One direction: what is allowed, or a denial of everything if that is nothing."""
    allowed = [subject for subject in subjects if _SUBJECT.fullmatch(subject)]
    if not allowed:
        return {"deny": [">"]}
    return {"allow": allowed, "deny": list(denied)} if denied else {"allow": allowed}
