# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a token may do on NATS: account and subjects (design: the one table of who gets what).

Pure.

====================  =======  ==========================================================
token                 account  gets
====================  =======  ==========================================================
container's own       ARVADOS  publish its own log subjects, and read its own last chunk
SystemRootToken,      ARVADOS  read the streams and what they republish, the API
admin, scope `all`
everybody else        USERS    the live patterns of his grants, cut to his scopes, the API
beyond the limit      USERS    the API alone (history, whoami); live by the WebSocket proxy
scopes read nothing   -        refused
====================  =======  ==========================================================

Everyone has a private inbox and may ask the server who he is. Nobody in USERS gets `$JS`,
`_INBOX.>`, responses or queue entries (facts/nats-callout.md 4, 9.6). Whoever is placed in ARVADOS
is trusted there: a consumer may deliver anywhere in the account (facts/nats.md).
"""

from __future__ import annotations

from arvados_nats import grant_subjects, nats_config, streams, subjects
from arvados_nats.errors import Refused
from arvados_nats.grants import Grants
from arvados_nats.permissions import ALL, Identity
from arvados_nats.request_info import Holder
from arvados_nats.tokens import Token
from authcallout.callout_response import Admission

USER_INFO = "$SYS.REQ.USER.INFO"
MAX_PATTERNS = 8000
"""A login with more live patterns takes over 25 ms of the server (facts/nats.md)."""

_CONSUMER_CALLS = ("CONSUMER.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT")
_ADMIN_STREAMS = (streams.EVENTS, streams.LOGS)


def admission(
    token: Token, identity: Identity, grants: Grants, now: float, *, limit: int = MAX_PATTERNS
) -> Admission:
    """What this token gets; Refused says why it gets nothing."""
    name = Holder(identity.user_uuid, identity.token_uuid, grants.generation).name
    inboxes = _inboxes(token, identity)
    if identity.container_uuid:
        return Admission(
            nats_config.ARVADOS, name, _container_publish(identity.container_uuid), inboxes
        )
    if is_trusted(identity, grants):
        return Admission(nats_config.ARVADOS, name, ADMIN_PUBLISH, (*inboxes, *ADMIN_SUBSCRIBE))
    if not grant_subjects.covered_branches(identity.scopes):
        raise Refused("the token's scopes cover no kind of object that can be watched")
    live = grant_subjects.subscriptions(identity, grants, now, limit)
    return Admission(
        nats_config.USERS, name, (f"{subjects.API}.>", USER_INFO), (*inboxes, *live.patterns)
    )


def is_trusted(identity: Identity, grants: Grants) -> bool:
    """Whether the token is one of an admin without limits, or the SystemRootToken."""
    return identity.is_root or (grants.is_admin and ALL in identity.scopes)


def _inboxes(token: Token, identity: Identity) -> tuple[str, ...]:
    """The inbox that a client can name before it is connected (facts/nats-callout.md 4).

    A bare secret names no token uuid, so its inbox is the user's; not for a scoped one, which would
    read the answers to its owner's other tokens there.
    """
    own = f"{subjects.inbox_prefix(identity.token_uuid)}.>"
    if token.uuid is None and ALL in identity.scopes:
        return (own, f"{subjects.inbox_prefix(identity.user_uuid)}.>")
    return (own,)


def _container_publish(container_uuid: str) -> tuple[str, ...]:
    logs = f"{subjects.LOGS}.{container_uuid}.>"
    return (logs, f"$JS.API.DIRECT.GET.{streams.LOGS}.{logs}")


ADMIN_PUBLISH = (
    f"{subjects.API}.>",
    USER_INFO,
    *(f"$JS.API.{call}.{stream}.>" for call in _CONSUMER_CALLS for stream in _ADMIN_STREAMS),
    *(f"$JS.API.STREAM.INFO.{stream}" for stream in _ADMIN_STREAMS),
    *(f"$JS.API.DIRECT.GET.{stream}" for stream in _ADMIN_STREAMS),
    *(f"$JS.API.DIRECT.GET.{stream}.>" for stream in _ADMIN_STREAMS),
    *(f"$JS.ACK.{stream}.>" for stream in _ADMIN_STREAMS),
)
ADMIN_SUBSCRIBE = (f"{subjects.STORED}.>", f"{subjects.LIVE}.>")
