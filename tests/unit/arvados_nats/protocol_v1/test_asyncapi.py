# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""docs/asyncapi.yaml describes the messages that the server speaks."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from arvados_nats.contract import answers
from arvados_nats.protocol_v1 import messages as messages_v1
from arvados_nats.protocol_v1 import requests as requests_v1
from wsproxy.native_api.events import EventsRequest
from wsproxy.native_api.logs import LogsRequest
from wsproxy.native_api.objects import ObjectRequest
from wsproxy.transport.close_codes import CloseCode

DOCS = Path(__file__).parents[4] / "docs"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_the_file_is_up_to_date() -> None:
    """Run `python tools/make_asyncapi.py` after changing a message."""
    made = runpy.run_path(str(DOCS.parent / "tools" / "make_asyncapi.py"))["page"]()
    assert (DOCS / "asyncapi.yaml").read_text(encoding="utf-8") == made


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No message and no schema is named that is not there."""
    references = re.findall(r"\$ref: '?#/([^'\s]+)", (DOCS / "asyncapi.yaml").read_text())
    assert len(references) > 40
    for reference in references:
        found: Any = document
        for part in reference.split("/"):
            found = found[part]
        assert found


def test_every_field_of_every_message_is_described(document: dict[str, Any]) -> None:
    """By the names that travel."""
    schemas = document["components"]["schemas"]
    for key, kind in {**requests_v1.CLIENT_KEYS, **messages_v1.SERVER_KEYS}.items():
        assert document["components"]["messages"][key]["summary"]
        names = {field.encode_name for field in msgspec.structs.fields(kind)}
        assert set(schemas[kind.__name__].get("properties", {})) == names


def test_what_native_clients_ask_is_described(document: dict[str, Any]) -> None:
    """Every field of every answer and its headers; each of them is in the guide, too (C1)."""
    guide = (DOCS / "clients.md").read_text(encoding="utf-8")
    native = runpy.run_path(str(DOCS.parent / "tools" / "make_asyncapi.py"))["NATIVE"]
    channels = {one["address"]: one for one in document["channels"].values()}
    for subject, (_, headers) in native.items():
        assert channels[subject]["messages"]["failure"]
        assert subject.replace("{uuid}", "<uuid>") in guide
        for header in headers:
            assert f"`{header}`" in guide, header
    schemas = document["components"]["schemas"]
    for kind in (answers.Whoami, answers.Failure, EventsRequest, LogsRequest, ObjectRequest):
        names = set(kind.__struct_fields__)
        assert set(schemas[kind.__name__]["properties"]) == names
    for field in answers.Whoami.__struct_fields__:
        assert field in guide, field


def test_messages_have_examples_that_are_right(document: dict[str, Any]) -> None:
    """They are frames of the contract tests, and can be read as what they are examples of (C6)."""
    messages = document["components"]["messages"]
    shown = {key for key in messages if messages[key].get("examples")}
    assert shown >= {"auth", "subscribe", "hello", "log", "event", "gap", "queued", "end", "error"}
    for key in shown:
        kind = {**requests_v1.CLIENT_KEYS, **messages_v1.SERVER_KEYS}[key]
        for example in messages[key]["examples"]:
            msgspec.convert(example["payload"][key], kind)


def test_the_page_names_every_message_and_code() -> None:
    """docs/protocol-v1.md leaves none out."""
    text = (DOCS / "protocol-v1.md").read_text(encoding="utf-8")
    for key in {**requests_v1.CLIENT_KEYS, **messages_v1.SERVER_KEYS}:
        if key != "unsubscribe":
            assert f"`{key}`" in text or f'"{key}"' in text, key
    assert str(CloseCode.TOKEN_INVALID.value) in text
