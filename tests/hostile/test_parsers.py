# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whatever is read of others is a value, or an error of ours that says so: nothing else is raised.

Each parser gets bytes of all kinds, and what it knows with a part replaced or cut
(`ARVADOS_NATS_FUZZ_EXAMPLES` of them). Frames, HTTP, streams and rows have tests of their own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.arvados import config, log_folder
from arvados_nats.arvados.tokens import Token
from arvados_nats.contract import log_chunks, queue_entries, subjects, system_log_records
from arvados_nats.errors import ArvadosNatsError
from arvados_nats.permissions import request_info
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.service import keys, machine_keys
from authcallout import callout_request
from authcallout.nkey_jwt import Signer
from wsproxy.cursors import Codec, LogCursor
from wsproxy.events import stored_event
from wsproxy.log_folder import ranges
from wsproxy.logs.place import LogPlace
from wsproxy.native_api import reply
from wsproxy.native_api.events import EventsRequest
from wsproxy.native_api.logs import LogsRequest
from wsproxy.native_api.objects import ObjectRequest
from wsproxy.page import search, site
from wsproxy.services import Services
from wsproxy.transport.limits import Kept, origin_allowed
from wsproxy.v0 import messages as messages_v0
from wsproxy.v1 import session as v1
from wsproxy.v1 import sse
from wsproxy.wamp import messages as wamp
from wsproxy.wamp.topics import topic_of

USER, REQUEST = "zzzzz-tpzed-000000000000001", "zzzzz-xvhdp-000000000000001"
CONTAINER = "zzzzz-dz642-000000000000001"
_SUBJECT = f"{subjects.LOGS}.{CONTAINER}.stdout_txt"
_CURSORS = Codec(b"k" * 32)
_PLACE = {"offset": 7, "epoch": 0}
_EVENTS = {"owners": [USER], "kinds": ["collection"], "cursor": "x", "begin": "oldest"}

_odd = st.sampled_from(
    ["", "\0", "\ud7ff\ue000", "..", "*", ">", "9" * 5000, "-1", "1e999", "\u0663", "a" * 70_000]
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**305)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | _odd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@st.composite
def altered(draw: st.DrawFn, *examples: Any) -> Any:
    """One of these with something else in one place."""
    top = [copy.deepcopy(draw(st.sampled_from(examples)))]
    place: Any = top
    key: Any = 0
    while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = draw(_values)
    return top[0]


@st.composite
def spoiled(draw: st.DrawFn, *examples: bytes) -> bytes:
    """Any bytes, or one of these with other bytes in one place, or cut, or nested deeply."""
    data = draw(st.sampled_from((b"", *examples)))
    start = draw(st.integers(0, len(data)))
    stop = draw(st.integers(start, len(data)))
    deep = st.sampled_from((b"[" * 3000, b'{"a":' * 3000, b"\xff" * 9, b"\0"))
    return data[:start] + draw(st.binary(max_size=40) | deep) + data[stop:]


def as_json(*examples: Any) -> st.SearchStrategy[bytes]:
    written = tuple(json.dumps(example).encode() for example in examples)
    return altered(*examples).map(lambda value: json.dumps(value).encode()) | spoiled(*written)


def as_text(*examples: Any) -> st.SearchStrategy[str]:
    return as_json(*examples).map(lambda data: data.decode("utf-8", "replace"))


def texts(*examples: str) -> st.SearchStrategy[str]:
    words = spoiled(*(example.encode() for example in examples))
    return words.map(lambda data: data.decode("utf-8", "replace")) | st.text() | _odd


def queries(*names: str) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(names) | st.text(max_size=5), texts("7", "a.txt:7"))


def joined_v1(frame: str) -> object:
    session = v1.SessionV1(v1.Bounds(3, 4096), 0.0)
    session.admitted(USER, USER, Kept(100_000))
    return session.received(frame)


def wamp_topic(frame: bytes) -> object:
    message = wamp.decode(frame)
    return topic_of(message) if isinstance(message, wamp.Subscribe) else None


def token(text: str) -> object:
    made = Token(text)
    return repr(made), made.usable, made.uuid, made.container_uuid, made.digest


def settings(text: str) -> object:
    found = config.choose(config.parse(text))
    return found.text("Services.Controller.ExternalURL"), found.texts("RemoteClusters")


def claims(changed: Any) -> object:
    body = changed if isinstance(changed, dict) else {"nats": changed}
    return callout_request.parse(Signer(SERVER).sign(body).encode())


SERVER = keys.generate(keys.Kind.SERVER)
CLAIMS = {
    "aud": "nats-authorization-request",
    "nats": {
        "type": "authorization_request",
        "user_nkey": keys.generate(keys.Kind.USER).public,
        "server_id": {"id": SERVER.public, "xkey": "X"},
        "client_info": {"id": 7, "host": "127.0.0.1", "kind": "Client", "type": "nats"},
        "connect_opts": {"auth_token": "secret", "name": "mine", "lang": "go"},
    },
}
_HEADERS = {"Arvados-File": "stdout.txt", "Arvados-Offset": "0", "Arvados-Epoch": "0"}
_END = {"container_uuid": CONTAINER, "state": "Complete", "exit_code": 0, "files": {"a": _PLACE}}
_SUBSCRIBE = {"id": "a", "log": {"uuid": REQUEST, "from": {"a": _PLACE}, "tail": 3}}
_TOPIC = f"arvados.event.{USER}.collection.update"
_DAV = (
    b'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>/a/stdout.txt</D:href>'
    b"<D:propstat><D:prop><D:getcontentlength>7</D:getcontentlength></D:prop></D:propstat>"
    b"</D:response></D:multistatus>"
)
_YAML = "Clusters:\n  zzzzz:\n    Services:\n      Controller: {ExternalURL: 'https://x'}\n"
_EVENT = {
    "id": 1,
    "uuid": "zzzzz-57u5n-000000000000001",
    "event_type": "update",
    "event_at": "2026-01-01T00:00:00Z",
    "created_at": "2026-01-01T00:00:00Z",
    "object_uuid": REQUEST,
    "object_owner_uuid": USER,
    "verified": True,
    "audience": [[USER, REQUEST]],
    "properties": {"new_attributes": {"name": "x"}},
    "facts": {"kind": "container_request", "uuid": REQUEST, "owner_uuid": USER, "places": []},
}
_ENTRY = {"uuid": CONTAINER, "state": "Queued", "priority": 1, "runtime_constraints": {"ram": 1}}
_RECORD = {"MESSAGE": [1, 255], "PRIORITY": "3", "__REALTIME_TIMESTAMP": "1", "_PID": ["1", "2"]}
_INFO = {"acc": "REQUESTS", "user": f"{USER}/zzzzz-gj3su-000000000000001/abc"}

PARSERS: dict[str, tuple[Callable[[Any], object], st.SearchStrategy[Any]]] = {
    "v0 command": (
        messages_v0.command,
        as_text({"method": "subscribe", "filters": [["event_type", "in", ["a"]]]}, {"Method": 1}),
    ),
    "v1 frame": (
        joined_v1,
        as_text({"subscribe": _SUBSCRIBE}, {"auth": {"token": "x"}}, {"unsubscribe": {"id": "a"}}),
    ),
    "v1 of a server, by clients": (messages_v1.decode, as_json({"log": {"file": "a", "text": ""}})),
    "WAMP frame and topic": (
        wamp_topic,
        as_json(
            [32, 1, {"match": "prefix", "x_arvados": {"begin": "now"}}, _TOPIC],
            [32, 1, {}, f"arvados.log.{REQUEST}?%7B%22tail%22%3A3%7D"],
            [48, 1, {}, "arvados.api.events", [], {}],
        ),
    ),
    "Last-Event-ID": (
        _CURSORS.log,
        texts(_CURSORS.encode(LogCursor(CONTAINER, {"a": LogPlace(0, 7)}))),
    ),
    "query of server-sent events": (
        lambda query: sse.target_of(cast(Services, None), REQUEST, query, None),
        queries("files", "tail", "from"),
    ),
    "query of a find": (
        search._asked,
        queries("container", "file", "text", "from", "to", "request"),
    ),
    "address to return to": (site.origin_of, texts("https://a.example:1/?x#y", "http://[::1]/")),
    "Origin": (
        lambda origin: origin_allowed(origin, "a.example", {"https://b.example"}),
        texts("https://a.example", "null"),
    ),
    "Range": (lambda header: ranges.part(header, 100), texts("bytes=0-9", "bytes=-5")),
    "request for events": (
        lambda data: reply.request(data, EventsRequest, ""),
        as_json({**_EVENTS, "limit": 7}),
    ),
    "request for logs": (
        lambda data: reply.request(data, LogsRequest, ""),
        as_json({"uuid": REQUEST, "file": "a", "offset": 7, "max_bytes": 9}),
    ),
    "request for an object": (
        lambda data: reply.request(data, ObjectRequest, ""),
        as_json({"etag": "x"}),
    ),
    "who asks": (
        lambda text: request_info.sender({"Nats-Request-Info": text}),
        as_text(_INFO),
    ),
    "log chunk": (
        lambda given: log_chunks.parse(*given),
        st.tuples(
            texts(_SUBJECT) | st.just(_SUBJECT),
            st.dictionaries(st.sampled_from(sorted(_HEADERS)), texts("0", "stdout.txt"))
            | altered(_HEADERS).filter(
                lambda found: (
                    isinstance(found, dict) and all(isinstance(v, str) for v in found.values())
                )
            ),
            spoiled(b"line\n"),
        ),
    ),
    "end of a log": (
        lambda data: log_chunks.parse(f"{subjects.LOGS}.{CONTAINER}.end", {}, data),
        as_json(_END),
    ),
    "event": (lambda data: stored_event.decode(1, data), as_json(_EVENT)),
    "queue entry": (lambda data: queue_entries.decode({}, data), as_json(_ENTRY)),
    "record of a journal": (lambda data: system_log_records.read(data, "h"), as_json(_RECORD)),
    "stored record": (system_log_records.decode, as_json({"host": "h", "message": "m"})),
    "callout request": (claims, altered(CLAIMS)),
    "JWT": (callout_request.parse, spoiled(Signer(SERVER).sign(CLAIMS).encode())),
    "config.yml": (settings, texts(_YAML, _YAML + "? [a]\n: b\n", "a: &a [*a]")),
    "listing of a log folder": (log_folder.entries, spoiled(_DAV, _DAV.replace(b"7", b"9" * 5000))),
    "token": (token, texts(f"v2/{USER}/x/{CONTAINER}")),
    "key of a machine": (machine_keys.named, texts("host/x")),
    "seed": (keys.parse_seed, texts(SERVER.text)),
}


@pytest.mark.parametrize("parser", PARSERS)
@given(data=st.data())
def test_what_is_read_is_a_value_or_an_error_of_ours(parser: str, data: st.DataObject) -> None:
    """Nobody who sends it decides how the program goes on."""
    parse, given_to = PARSERS[parser]
    try:
        parse(data.draw(given_to))
    except ArvadosNatsError as error:
        assert str(error)
