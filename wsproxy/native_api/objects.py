# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados.api.object.<uuid>`: the state of one object, for a native client without a socket.

The record that a v1 `object` subscription begins with, under the same etag, read from Arvados'
database after the place in the stream was noted that the answer names. So whoever hears the
object's live subject, and lays what comes with a higher sequence over the record, misses nothing
(docs/clients.md). What may not be read looks as if it were not there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from arvados_nats.contract import answers, subjects
from arvados_nats.contract.answers import Part
from arvados_nats.nats.client import Nats
from arvados_nats.permission_client import object_messages
from arvados_nats.permission_client.object_messages import Snapshot
from arvados_nats.permissions.judge import Judge
from arvados_nats.permissions.rule import ALL, scopes_allow
from wsproxy.cursors import Codec
from wsproxy.events.event_source import EventSource
from wsproxy.native_api import reply as native_reply
from wsproxy.native_api.events import extent
from wsproxy.native_api.log_parts import LIVE
from wsproxy.native_api.reply import GetJudge
from wsproxy.objects import state as object_state

ETAG = "Arvados-Etag"
_EXAMPLE = '{"etag": "…"}'


class ObjectRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`etag`: what the client has; the same state is not sent again."""

    etag: Annotated[str, Meta(max_length=64)] = ""


class NativeObjects:
    """Answers for `arvados.api.object.<uuid>`."""

    def __init__(self, nats: Nats, source: EventSource, cursors: Codec) -> None:
        self._nats = nats
        self._source = source
        self._cursors = cursors

    async def answer(self, uuid: str, payload: bytes, get_judge: GetJudge) -> AsyncIterator[Part]:
        """The record, unless the client has it, then the end with the place to go on from."""
        asked = native_reply.request(payload, ObjectRequest, _EXAMPLE)
        object_state.attributes(uuid)
        here, _ = await extent(self._nats, self._source)
        answer = await self._nats.request(subjects.OBJECTS_GET, uuid.encode())
        snapshot = object_messages.decode(answer.headers, answer.data)
        judge = await get_judge()
        record = _readable(uuid, snapshot, judge)
        etag = object_state.etag(record)
        if etag != asked.etag:
            yield Part(msgspec.json.encode(record), {ETAG: etag})
        yield Part(
            headers={
                answers.END: self._cursors.encode(here),
                answers.MORE: native_reply.flag(False),
                answers.SEQUENCE: str(here.sequence),
                ETAG: etag,
                **_live(snapshot, judge),
            }
        )


def _readable(uuid: str, snapshot: Snapshot, judge: Judge) -> dict[str, Any]:
    """The state, with a request's container if the token's scopes reach it; or Refused."""
    facts, record = snapshot.facts, snapshot.record
    if facts is None or record is None:
        raise native_reply.not_readable()
    if not judge.allows(facts):
        raise native_reply.not_readable()
    state = object_state.state_of(uuid, record)
    if "container_uuid" not in state:
        return state
    container = state["container_uuid"]
    shown = snapshot.container if container and _in_scope(judge, container) else None
    return {**state, "container": object_state.state_of(container, shown) if shown else None}


def _live(snapshot: Snapshot, judge: Judge) -> dict[str, str]:
    """Where changes are heard: below a share point above the object; of a container, below that of
    a request that shows it."""
    facts = snapshot.facts
    if facts is None:
        return {}
    if facts.collection_uuid:
        linked, owner = facts.collection_uuid, facts.collection_owner_uuid or ""
        share = judge.heard_at(facts, linked, owner)
        return {LIVE: f"{subjects.LIVE}.{share}.*.{linked}.event.workflow.{facts.uuid}.>"}
    if facts.requests is None:
        share = judge.heard_at(facts, facts.uuid, facts.owner_uuid)
        return {LIVE: f"{subjects.LIVE}.{share}.*.{facts.uuid}.event.>"}
    shown = judge.requests_shown(facts)
    if not shown:
        return {}
    owner, request = shown[0]
    share = judge.heard_at(facts, request, owner)
    subject = subjects.live_event(share, "*", request, facts.uuid, None)
    return {LIVE: f"{subject.removesuffix(subjects.OTHER)}>"}


def _in_scope(judge: Judge, container: str) -> bool:
    scopes = judge.identity.scopes
    return ALL in scopes or scopes_allow(scopes, "GET", f"/arvados/v1/containers/{container}")
