# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a token may do on NATS: account and subjects, the one table of who gets what.

Pure.

====================  ========  ==========================================================
token                 account   gets
====================  ========  ==========================================================
container's own       SENDERS   publish its own log subjects, but not the end marker, and read its
                                own last chunk
a machine's key       SENDERS   publish its own system log, and read its last record
any other, asking     REQUESTS  the API (history, state, whoami), and its answers in its inbox
SystemRootToken,      ARVADOS   read the streams and what they republish
admin, scope `all`
everybody else        USERS     the live patterns of their grants, cut to their scopes
beyond the limit      USERS     nothing: live by the WebSocket proxy
scopes read nothing   -         refused
====================  ========  ==========================================================

Nobody in USERS publishes anything: no permission covers where an answer goes, and what is answered
there would be heard as an event. Nobody in REQUESTS hears anything but answers. In neither is there
`$JS`, `_INBOX.>`, responses or queue entries (docs/facts/nats-callout.md 4, 9.6). Whoever is placed
in ARVADOS is trusted there: consumers deliver, and JetStream answers, anywhere in the account
(docs/facts/nats.md, `nats.accounts_config`).
"""

from __future__ import annotations

import hashlib

from arvados_nats.contract import accounts, log_chunks, streams, subjects
from arvados_nats.errors import Refused
from arvados_nats.permissions import grant_subjects
from arvados_nats.permissions.grant_subjects import Subscriptions
from arvados_nats.permissions.grants import Grants
from arvados_nats.permissions.request_info import Holder
from arvados_nats.permissions.rule import ALL, Identity
from authcallout.callout_response import Admission

USER_INFO = "$SYS.REQ.USER.INFO"
MAX_PATTERNS = 8000
"""A login with more live patterns takes over 25 ms of the server (docs/facts/nats.md)."""

CONTAINER, ASKING = "container", "asking"
"""Fingerprints of a container's own token and of who asks: what they get depends on no grants."""
FIXED = frozenset((CONTAINER, ASKING))

_CONSUMER_CALLS = ("CONSUMER.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT")
_ADMIN_STREAMS = (streams.EVENTS, streams.LOGS, streams.QUEUE, streams.SYSTEM_LOGS)


def admission(
    identity: Identity,
    grants: Grants,
    *,
    asks: bool = False,
    limit: int = MAX_PATTERNS,
) -> Admission:
    """What this token gets; Refused says why it gets nothing."""
    if identity.container_uuid:
        name = Holder(identity.user_uuid, identity.token_uuid, CONTAINER).name
        return Admission(
            accounts.SENDERS,
            name,
            _container_publish(identity.container_uuid),
            (_inbox(identity.token_uuid),),
            publish_denied=(subjects.log(identity.container_uuid, log_chunks.END_TOKEN),),
            payload=log_chunks.MAX_MESSAGE,
        )
    if asks:
        _require_scopes(identity)
        name = Holder(identity.user_uuid, identity.token_uuid, ASKING).name
        return Admission(accounts.REQUESTS, name, _ASK, _inboxes(identity))
    account, live = listening(identity, grants, limit)
    subscribe = live.patterns
    name = Holder(identity.user_uuid, identity.token_uuid, _digest(account, subscribe)).name
    if account == accounts.ARVADOS:
        return Admission(account, name, ADMIN_PUBLISH, (*_inboxes(identity), *subscribe))
    return Admission(account, name, (), subscribe, left_out=live.needed if live.overflow else 0)


def machine(host: str) -> Admission:
    """What a machine with a key of its own gets: to add to its own records, and to see the last."""
    own = subjects.system_logs_of(host)
    return Admission(
        accounts.SENDERS,
        f"system-logs/{host}",
        (own, f"$JS.API.DIRECT.GET.{streams.SYSTEM_LOGS}.{own}"),
        (f"{subjects.inbox_prefix(f'system-logs-{host}')}.>",),
        payload=streams.MAX_SYSTEM_RECORD,
    )


def fingerprint(identity: Identity, grants: Grants, *, limit: int = MAX_PATTERNS) -> str | None:
    """Fingerprint of what `admission` would give this identity now; None if nothing."""
    try:
        account, live = listening(identity, grants, limit)
    except Refused:
        return None
    return _digest(account, live.patterns)


def listening(identity: Identity, grants: Grants, limit: int) -> tuple[str, Subscriptions]:
    """The account of one who comes to listen, and the subjects there."""
    if identity.is_root or (grants.is_admin and ALL in identity.scopes):
        return accounts.ARVADOS, Subscriptions(ADMIN_SUBSCRIBE, needed=len(ADMIN_SUBSCRIBE))
    _require_scopes(identity)
    return accounts.USERS, grant_subjects.subscriptions(identity, grants, limit)


def _require_scopes(identity: Identity) -> None:
    if not grant_subjects.covered_branches(identity.scopes):
        raise Refused("the token's scopes cover no kind of object that can be watched")


def _digest(account: str, subscribe: tuple[str, ...]) -> str:
    content = "\n".join((account, *sorted(subscribe))).encode()
    return hashlib.blake2b(content, digest_size=10).hexdigest()


def _inboxes(identity: Identity) -> tuple[str, ...]:
    """The inboxes that a client can name before it is connected (docs/facts/nats-callout.md 4).

    The user's, which stays when a connection renews its token; not for a scoped token, which would
    read the answers to its owner's other tokens there.
    """
    own = _inbox(identity.token_uuid)
    return (_inbox(identity.user_uuid), own) if ALL in identity.scopes else (own,)


def _inbox(identifier: str) -> str:
    return f"{subjects.inbox_prefix(identifier)}.>"


def _container_publish(container_uuid: str) -> tuple[str, ...]:
    logs = f"{subjects.LOGS}.{container_uuid}.*"
    return (logs, f"$JS.API.DIRECT.GET.{streams.LOGS}.{logs}")


_ASK = (f"{subjects.API}.>", USER_INFO)
ADMIN_PUBLISH = (
    USER_INFO,
    *(f"$JS.API.{call}.{stream}.>" for call in _CONSUMER_CALLS for stream in _ADMIN_STREAMS),
    *(f"$JS.API.STREAM.INFO.{stream}" for stream in _ADMIN_STREAMS),
    "$JS.API.STREAM.NAMES",  # a library that subscribes to a subject asks for its stream
    *(f"$JS.API.DIRECT.GET.{stream}" for stream in _ADMIN_STREAMS),
    *(f"$JS.API.DIRECT.GET.{stream}.>" for stream in _ADMIN_STREAMS),
    *(f"$JS.API.STREAM.MSG.GET.{stream}" for stream in _ADMIN_STREAMS),
    *(f"$JS.ACK.{stream}.>" for stream in _ADMIN_STREAMS),
    # An ordered consumer has no name at creation, and its client answers the flow control.
    *(f"$JS.API.CONSUMER.CREATE.{stream}" for stream in _ADMIN_STREAMS),
    *(f"$JS.FC.{stream}.>" for stream in _ADMIN_STREAMS),
)
ADMIN_SUBSCRIBE = (f"{subjects.STORED}.>", f"{subjects.LIVE}.>")
