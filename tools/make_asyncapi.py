# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Write docs/asyncapi.yaml: protocol v1 and what native clients ask, from the types themselves.

Examples are the frames of tests/contract. Run `python tools/make_asyncapi.py` after changing a
message; a test holds the file to the types.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec
import yaml

from arvados_nats.contract import answers, subjects
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1 import requests as requests_v1
from wsproxy.native_api import log_parts
from wsproxy.native_api import objects as native_objects
from wsproxy.native_api.events import EventsRequest
from wsproxy.native_api.logs import LogsRequest
from wsproxy.transport.close_codes import CloseCode
from wsproxy.v1 import session as session_v1

PATH = Path(__file__).parents[1] / "docs" / "asyncapi.yaml"
_HEAD = """\
# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
#
# Written by tools/make_asyncapi.py from arvados_nats/protocol_v1; do not edit.
"""
_ABOUT = """\
Protocol v1, and what native clients ask of `arvados.api`. Of v1: one JSON object per text frame,
with one key that names its type; ignore what you do not know in what the server says, and say
nothing that it does not know: it is refused by its name. Logs and states (`log`, `object`, `end` of
a file or container) carry no subscription id, so that one encoded frame serves all.
docs/protocol-v1.md says how they play together; docs/clients.md says the same of native clients.
"""
_REF = "#/components/schemas/{name}"
_FRAMES = Path(__file__).parents[1] / "tests" / "contract" / "frames"

NATIVE: dict[str, tuple[type[msgspec.Struct] | None, list[str]]] = {
    subjects.API_WHOAMI: (None, [answers.END]),
    subjects.API_EVENTS: (
        EventsRequest,
        [answers.SEQUENCE, answers.CURSOR, answers.GAP, answers.END, answers.MORE],
    ),
    f"{subjects.API_OBJECT}.{{uuid}}": (
        native_objects.ObjectRequest,
        [native_objects.ETAG, log_parts.LIVE, answers.SEQUENCE, answers.END, answers.MORE],
    ),
    subjects.API_LOGS: (
        LogsRequest,
        [
            *(log_parts.FILE, log_parts.OFFSET, log_parts.EPOCH),
            *(log_parts.CONTAINER, log_parts.ATTEMPT, log_parts.LOG_PATH, answers.GAP),
            *(log_parts.ENDED, log_parts.LIVE, answers.END, answers.MORE),
        ],
    ),
}
"""Requests of native clients: their fields, and the headers of the messages of their answers."""


def document() -> dict[str, Any]:
    """The AsyncAPI 3.1 document."""
    kinds = {**requests_v1.CLIENT_KEYS, **messages_v1.SERVER_KEYS}
    asked = [kind for kind, _ in NATIVE.values() if kind is not None]
    types = [*kinds.values(), *asked, answers.Whoami, answers.Failure]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    examples = _examples()
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "arvados-nats: protocol v1, and requests of native clients",
            "version": "1",
            "description": _ABOUT,
        },
        "servers": {
            "wsproxy": {"host": "ws.example", "protocol": "wss", "pathname": "/v1/stream"},
            "nats": {"host": "nats.example:4222", "protocol": "nats"},
        },
        "channels": {
            "stream": {
                "address": "/v1/stream",
                "servers": [{"$ref": "#/servers/wsproxy"}],
                "description": _closing(),
                "messages": {key: _ref("messages", key) for key in kinds},
                "bindings": {
                    "ws": {
                        "headers": {
                            "type": "object",
                            "properties": {
                                "Sec-WebSocket-Protocol": {"const": messages_v1.SUBPROTOCOL}
                            },
                        }
                    }
                },
            },
            **{_name(subject): _native_channel(subject) for subject in NATIVE},
        },
        "operations": {
            "fromClient": _operation("receive", requests_v1.CLIENT_KEYS),
            "fromServer": _operation("send", messages_v1.SERVER_KEYS),
            **{f"ask_{_name(subject)}": _native_operation(subject) for subject in NATIVE},
        },
        "components": {
            "messages": {
                **{key: _message(key, kind, examples) for key, kind in kinds.items()},
                **{f"ask_{_name(subject)}": _question(subject) for subject in NATIVE},
                **{f"answer_{_name(subject)}": _answer(subject) for subject in NATIVE},
                "failure": _failure(),
            },
            "schemas": schemas,
        },
    }


def _examples() -> dict[str, list[dict[str, Any]]]:
    """By key, the first frames of it in the contract tests."""
    found: dict[str, list[dict[str, Any]]] = {}
    paths = sorted(_FRAMES.glob("*/v1-*.jsonl"), reverse=True)  # the recorded ones first
    for path in (path for path in paths if "newer" not in path.stem):
        for line in path.read_text(encoding="utf-8").splitlines():
            step = json.loads(line)
            for key, body in step.get("client", step.get("server", {})).items():
                shown = {"payload": json.loads(json.dumps({key: body}).replace("$", ""))}
                if shown not in found.setdefault(key, []) and len(found[key]) < 3:
                    found[key].append(shown)
    return found


def _name(subject: str) -> str:
    return subject.removeprefix(f"{subjects.API}.").partition(".")[0]


def _native_channel(subject: str) -> dict[str, Any]:
    name = _name(subject)
    parameters = (
        {"parameters": {"uuid": {"description": "Of the object."}}} if "{" in subject else {}
    )
    return {
        "address": subject,
        "servers": [{"$ref": "#/servers/nats"}],
        **parameters,
        "messages": {
            key: _ref("messages", key) for key in (f"ask_{name}", f"answer_{name}", "failure")
        },
    }


def _native_operation(subject: str) -> dict[str, Any]:
    name = _name(subject)
    channel = f"#/channels/{name}"
    return {
        "action": "receive",
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/ask_{name}"}],
        "reply": {
            "channel": {"$ref": channel},
            "messages": [
                {"$ref": f"{channel}/messages/answer_{name}"},
                {"$ref": f"{channel}/messages/failure"},
            ],
        },
    }


def _question(subject: str) -> dict[str, Any]:
    kind, _ = NATIVE[subject]
    fields = {"type": "object", "additionalProperties": False, "properties": {}}
    return {
        "summary": "The request; it may be empty where no field is required.",
        "contentType": "application/json",
        "payload": _schema(kind) if kind else fields,
    }


def _answer(subject: str) -> dict[str, Any]:
    """One of the messages of an answer."""
    _, headers = NATIVE[subject]
    shown: dict[str, Any] = {
        subjects.API_WHOAMI: _schema(answers.Whoami),
        subjects.API_LOGS: {"description": "Bytes of the file; without file, the list as JSON."},
    }.get(subject, {"type": "object"})
    return {
        "summary": f"One of the messages of the answer; the last is empty and has {answers.END}.",
        "headers": {
            "type": "object",
            "properties": {header: {"type": "string"} for header in headers},
        },
        "payload": shown,
    }


def _failure() -> dict[str, Any]:
    return {
        "summary": "Instead of an answer, or in its midst: the last message.",
        "headers": {
            "type": "object",
            "required": [answers.ERROR],
            "properties": {answers.ERROR: {"type": "string"}},
        },
        "payload": _schema(answers.Failure),
    }


def _schema(kind: type[msgspec.Struct]) -> dict[str, str]:
    return _ref("schemas", kind.__name__)


def _message(
    key: str, kind: type[msgspec.Struct], examples: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    return {
        "summary": (kind.__doc__ or "").strip().partition("\n")[0],
        "contentType": "application/json",
        "payload": {
            "type": "object",
            "required": [key],
            "properties": {key: _schema(kind)},
        },
        **({"examples": examples[key]} if key in examples else {}),
    }


def _operation(action: str, kinds: dict[str, type[msgspec.Struct]]) -> dict[str, Any]:
    channel = "#/channels/stream"
    messages = [{"$ref": f"{channel}/messages/{key}"} for key in kinds]
    return {"action": action, "channel": {"$ref": channel}, "messages": messages}


def _ref(part: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{part}/{name}"}


def _closing() -> str:
    lines = [
        f"- {code.value} {code.name.lower()}: {'come back' if code.come_back else 'stop'}"
        for code in CloseCode
    ]
    head = f"A text frame holds one message of at most {session_v1.MAX_MESSAGE} bytes."
    return "\n".join([head, "Close codes:", *lines])


def page() -> str:
    """The text of docs/asyncapi.yaml."""
    text: str = yaml.dump(document(), Dumper=_Dumper, sort_keys=False, width=96)
    return _HEAD + text


class _Dumper(yaml.SafeDumper):
    """Several lines of text as such; no anchors for what stands twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
