# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Every subject name of the facility, and the kinds of Arvados objects that stand in them.

Pure. A subject token is `[A-Za-z0-9_-]`; what a user may choose freely (event types, object
uuids of posted log rows, file names) is replaced when it does not fit, and stands unchanged in the
message (docs/facts/arvados.md 0.3: any user can post log rows).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EVENTS = "arvados.events"
LOGS = "arvados.logs"
STORED = "arvados.stored"
STORED_EVENTS = "arvados.stored.events"
LIVE = "arvados.live"
QUEUE = "$KV.ARVADOS_QUEUE"
"""Keys of the bucket ARVADOS_QUEUE, as all clients name them."""
STORED_QUEUE = "arvados.stored.queue"
SYSTEM_LOGS = "arvados.syslog"
CURSORS = "arvados.cursors"
"""Inside ARVADOS: how far a service that carries a stream on has come."""
LEADING = "arvados.leading"
"""Inside ARVADOS: the one of several publishers that works says so, by the name of its lock."""
API = "arvados.api"

GRANTS_GET = "arvados.grants.get"
GRANTS_CHANGED = "arvados.grants.changed"
GRANTS_ANSWERED = "arvados.grants.answered"
"""Told among the replicas of the permission publisher: who was given which answer."""
GRANTS_STARTED = "arvados.grants.started"
"""Told when a permission publisher takes over: what was told meanwhile may have been missed."""
GRANTS_HIDDEN = "arvados.grants.hidden"
"""Told when the trash hides something from those who have their right to it from a share below."""
TOKENS_GET = "arvados.tokens.get"
TOKENS_GONE = "arvados.tokens.gone"
OBJECTS_GET = "arvados.objects.get"
"""Inside ARVADOS: objects as the database has them now (`object_messages`)."""
OBJECTS_FACTS = "arvados.objects.facts"
"""Inside ARVADOS: a JSON list of uuids gives what the read rule must know of those that exist."""
PLACES_GET = "arvados.places.get"
"""Inside ARVADOS: a JSON list of groups gives where they are now, as `places.Place`."""
RUNS_GET = "arvados.runs.get"
"""Inside ARVADOS: containers and their requests as the database has them now (`run_messages`)."""
LOG_INTEREST = "arvados.interest.logs"
"""Readers announce here that somebody watches a container: `arvados.interest.logs.<container>`."""
LOG_INTEREST_ASKED = "arvados.interest.asked"
"""A publisher of logs that has just begun asks here what is watched, so that it is told at once."""
LOG_TAILERS = "arvados.publishers.logs"
"""Container log publishers announce themselves here: `arvados.publishers.logs.<replica>`."""
API_WHOAMI = "arvados.api.whoami"
API_EVENTS = "arvados.api.events"
API_LOGS = "arvados.api.logs"
API_OBJECT = "arvados.api.object"
"""`arvados.api.object.<uuid>`"""

NONE = "none"
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of Arvados object.

    `infix` is the middle part of its uuids, `name` the subject token and singular REST name,
    `path` the REST collection, `arvados` what stands in `object_kind` (`arvados#…`).
    """

    infix: str
    name: str
    path: str
    arvados: str


KINDS = (
    Kind("dz642", "container", "containers", "arvados#container"),
    Kind("xvhdp", "container_request", "container_requests", "arvados#containerRequest"),
    Kind("4zz18", "collection", "collections", "arvados#collection"),
    Kind("j7d0g", "group", "groups", "arvados#group"),
    Kind("tpzed", "user", "users", "arvados#user"),
    Kind("o0j2j", "link", "links", "arvados#link"),
    Kind("7fd4e", "workflow", "workflows", "arvados#workflow"),
    Kind(
        "gj3su",
        "api_client_authorization",
        "api_client_authorizations",
        "arvados#apiClientAuthorization",
    ),
    Kind("57u5n", "log", "logs", "arvados#log"),
    Kind("fngyi", "authorized_key", "authorized_keys", "arvados#authorizedKey"),
    Kind("2x53u", "virtual_machine", "virtual_machines", "arvados#virtualMachine"),
    Kind("oss07", "credential", "credentials", "arvados#credential"),
    Kind("bi6l4", "keep_service", "keep_services", "arvados#keepService"),
)
KIND_OF_INFIX = {kind.infix: kind for kind in KINDS}
KIND_OF_NAME = {kind.name: kind for kind in KINDS}

_UUID = re.compile(r"[a-z0-9]{5}-([a-z0-9]{5})-[a-z0-9]{15}")
_EVENT_TYPE = re.compile(r"[a-z_]{1,32}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_MAX_FILE_TOKEN = 128


def is_uuid(text: str | None) -> bool:
    """Whether `text` has the form of an Arvados uuid."""
    return text is not None and _UUID.fullmatch(text) is not None


def kind_of(uuid: str | None) -> Kind | None:
    """The kind that a well-formed uuid names, or None."""
    match = _UUID.fullmatch(uuid) if uuid else None
    return KIND_OF_INFIX.get(match[1]) if match else None


def file_token(file: str) -> str:
    """A name from outside as one subject token: `stdout.txt` becomes `stdout_txt`."""
    return _UNSAFE.sub("_", file)[:_MAX_FILE_TOKEN] or "_"


def _event_tail(uuid: str | None, event_type: str | None) -> str:
    kind = kind_of(uuid)
    kind_token = kind.name if kind else OTHER
    uuid_token = uuid if is_uuid(uuid) else NONE
    fits = event_type is not None and _EVENT_TYPE.fullmatch(event_type)
    return f"{kind_token}.{uuid_token}.{event_type if fits else OTHER}"


def event(uuid: str | None, event_type: str | None) -> str:
    """Subject of one change of one object: `arvados.events.<kind>.<uuid>.<event_type>`."""
    return f"{EVENTS}.{_event_tail(uuid, event_type)}"


def events_of(uuid: str) -> str:
    """Pattern of all stored changes of one object in the stream."""
    kind = kind_of(uuid)
    return f"{EVENTS}.{kind.name if kind else OTHER}.{uuid}.*"


def log(container_uuid: str, file: str) -> str:
    """Subject of the bytes of one log file: `arvados.logs.<container>.<file>`."""
    return f"{LOGS}.{container_uuid}.{file_token(file)}"


def logs_of(container_uuid: str) -> str:
    """Pattern of the bytes of all log files of one container."""
    return f"{LOGS}.{container_uuid}.*"


def system_log(host: str, unit: str) -> str:
    """Subject of a machine's system log records: `arvados.syslog.<host>.<unit>`."""
    return f"{SYSTEM_LOGS}.{file_token(host)}.{file_token(unit)}"


def system_logs_of(host: str) -> str:
    """Pattern of all system log records of one machine."""
    return f"{SYSTEM_LOGS}.{file_token(host)}.>"


def stored(subject: str) -> str:
    """Where the server republishes a message of a stream after storing it."""
    return f"{STORED}.{subject.removeprefix('arvados.')}"


def live_event(share: str, owner: str, obj: str, uuid: str | None, event_type: str | None) -> str:
    """What those to whom `share` was opened may see of a change of, or below, `obj`."""
    return f"{LIVE}.{share}.{owner}.{obj}.event.{_event_tail(uuid, event_type)}"


def live_log(share: str, owner: str, obj: str, container_uuid: str, file: str) -> str:
    """The bytes of a container's log file under a container request that shows it."""
    return f"{LIVE}.{share}.{owner}.{obj}.log.{container_uuid}.{file_token(file)}"


def cursor(reader: str, stream: str) -> str:
    """Where a service says how far it has come in a stream."""
    return f"{CURSORS}.{reader}.{stream}"


def grants_changed(user_uuid: str) -> str:
    """Told when what a user may read has changed."""
    return f"{GRANTS_CHANGED}.{user_uuid}"


def token_gone(token_uuid: str) -> str:
    """Told when a token is no longer valid."""
    return f"{TOKENS_GONE}.{token_uuid}"


def log_interest(container_uuid: str) -> str:
    """Told by readers while somebody watches the logs of a container."""
    return f"{LOG_INTEREST}.{container_uuid}"


def inbox_prefix(identifier: str) -> str:
    """Private inbox of one token: its uuid, or the user's where the token has none."""
    return f"_INBOX_{identifier}"
