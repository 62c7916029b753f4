# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a token may do on NATS: account and subjects, the one table of who gets what.

Pure.

====================  =======  ==========================================================
token                 account  gets
====================  =======  ==========================================================
container's own       SENDERS  publish its own log subjects, but not the end marker, and read its
                               own last chunk
SystemRootToken,      ARVADOS  read the streams and what they republish, the API
admin, scope `all`
everybody else        USERS    the live patterns of his grants, cut to his scopes, the API
beyond the limit      USERS    the API alone (history, whoami); live by the WebSocket proxy
scopes read nothing   -        refused
====================  =======  ==========================================================

Everyone has a private inbox and may ask the server who he is. Nobody in USERS gets `$JS`,
`_INBOX.>`, responses or queue entries (docs/facts/nats-callout.md 4, 9.6). Whoever is placed in
ARVADOS is trusted there: consumers deliver, and JetStream answers, anywhere in the account
(docs/facts/nats.md, `nats_config`).
"""

from __future__ import annotations

import hashlib

from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import accounts, log_chunks, streams, subjects
from arvados_nats.errors import Refused
from arvados_nats.permissions import grant_subjects
from arvados_nats.permissions.grants import Grants
from arvados_nats.permissions.request_info import Holder
from arvados_nats.permissions.rule import ALL, Identity
from authcallout.callout_response import Admission

USER_INFO = "$SYS.REQ.USER.INFO"
MAX_PATTERNS = 8000
"""A login with more live patterns takes over 25 ms of the server (docs/facts/nats.md)."""

CONTAINER = "container"
"""Fingerprint of a container's own token: what it gets depends on no grants."""

_CONSUMER_CALLS = ("CONSUMER.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT")
_ADMIN_STREAMS = (streams.EVENTS, streams.LOGS, streams.QUEUE, streams.SYSTEM_LOGS)


def admission(
    token: Token, identity: Identity, grants: Grants, now: float, *, limit: int = MAX_PATTERNS
) -> Admission:
    """What this token gets; Refused says why it gets nothing."""
    own = _inboxes(token, identity)
    if identity.container_uuid:
        name = Holder(identity.user_uuid, identity.token_uuid, CONTAINER).name
        return Admission(
            accounts.SENDERS,
            name,
            _container_publish(identity.container_uuid),
            own,
            publish_denied=(subjects.log(identity.container_uuid, log_chunks.END_TOKEN),),
            payload=log_chunks.MAX_MESSAGE,
        )
    account, publish, subscribe = _rights(identity, grants, now, limit)
    name = Holder(identity.user_uuid, identity.token_uuid, _digest(account, subscribe)).name
    return Admission(account, name, publish, (*own, *subscribe))


def fingerprint(
    identity: Identity, grants: Grants, now: float, *, limit: int = MAX_PATTERNS
) -> str | None:
    """Fingerprint of what `admission` would give this identity now; None if nothing."""
    try:
        account, _, subscribe = _rights(identity, grants, now, limit)
    except Refused:
        return None
    return _digest(account, subscribe)


def _rights(
    identity: Identity, grants: Grants, now: float, limit: int
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Account, what may be published, and what may be subscribed to beyond the inbox."""
    if identity.is_root or (grants.is_admin and ALL in identity.scopes):
        return accounts.ARVADOS, ADMIN_PUBLISH, ADMIN_SUBSCRIBE
    if not grant_subjects.covered_branches(identity.scopes):
        raise Refused("the token's scopes cover no kind of object that can be watched")
    live = grant_subjects.subscriptions(identity, grants, now, limit)
    return accounts.USERS, (f"{subjects.API}.>", USER_INFO), live.patterns


def _digest(account: str, subscribe: tuple[str, ...]) -> str:
    content = "\n".join((account, *sorted(subscribe))).encode()
    return hashlib.blake2b(content, digest_size=10).hexdigest()


def _inboxes(token: Token, identity: Identity) -> tuple[str, ...]:
    """The inbox that a client can name before it is connected (docs/facts/nats-callout.md 4).

    A bare secret names no token uuid, so its inbox is the user's; not for a scoped one, which would
    read the answers to its owner's other tokens there.
    """
    own = f"{subjects.inbox_prefix(identity.token_uuid)}.>"
    if token.uuid is None and ALL in identity.scopes:
        return (own, f"{subjects.inbox_prefix(identity.user_uuid)}.>")
    return (own,)


def _container_publish(container_uuid: str) -> tuple[str, ...]:
    logs = f"{subjects.LOGS}.{container_uuid}.*"
    return (logs, f"$JS.API.DIRECT.GET.{streams.LOGS}.{logs}")


ADMIN_PUBLISH = (
    f"{subjects.API}.>",
    USER_INFO,
    *(f"$JS.API.{call}.{stream}.>" for call in _CONSUMER_CALLS for stream in _ADMIN_STREAMS),
    *(f"$JS.API.STREAM.INFO.{stream}" for stream in _ADMIN_STREAMS),
    *(f"$JS.API.DIRECT.GET.{stream}" for stream in _ADMIN_STREAMS),
    *(f"$JS.API.DIRECT.GET.{stream}.>" for stream in _ADMIN_STREAMS),
    *(f"$JS.ACK.{stream}.>" for stream in _ADMIN_STREAMS),
    # A client that watches the bucket has an ordered consumer, and answers its flow control.
    f"$JS.API.CONSUMER.CREATE.{streams.QUEUE}",
    f"$JS.FC.{streams.QUEUE}.>",
)
ADMIN_SUBSCRIBE = (f"{subjects.STORED}.>", f"{subjects.LIVE}.>")
