# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Write docs/asyncapi.yaml, the description of protocol v1, from the message types themselves.

Run `python tools/make_asyncapi.py` after changing a message; a test holds the file to the types.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import msgspec
import yaml

from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1 import requests as requests_v1
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
One JSON object per text frame, with one key that names its type; both sides ignore keys they do not
know. Messages that are the same for every reader (`log`, `object`, `event`, `end` of a file or
container) carry no subscription id, so that one encoded frame serves all. docs/protocol-v1.md says
how they play together.
"""
_REF = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The AsyncAPI 3.0 document."""
    kinds = {**requests_v1.CLIENT_KEYS, **messages_v1.SERVER_KEYS}
    _, schemas = msgspec.json.schema_components(kinds.values(), ref_template=_REF)
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "arvados-nats wsproxy, protocol v1",
            "version": "1",
            "description": _ABOUT,
        },
        "servers": {"wsproxy": {"host": "ws.example", "protocol": "wss", "pathname": "/v1/stream"}},
        "channels": {
            "stream": {
                "address": "/v1/stream",
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
            }
        },
        "operations": {
            "fromClient": _operation("receive", requests_v1.CLIENT_KEYS),
            "fromServer": _operation("send", messages_v1.SERVER_KEYS),
        },
        "components": {
            "messages": {key: _message(key, kind) for key, kind in kinds.items()},
            "schemas": schemas,
        },
    }


def _message(key: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        "summary": (kind.__doc__ or "").strip().partition("\n")[0],
        "contentType": "application/json",
        "payload": {
            "type": "object",
            "required": [key],
            "properties": {key: _ref("schemas", kind.__name__)},
        },
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
