# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The discovery document, from which Arvados' clients learn the methods and the service URLs."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any


@functools.cache
def _recorded() -> str:
    return resources.files("sandbox").joinpath("data/discovery.json").read_text(encoding="utf-8")


def document(host: str, cluster_id: str, websocket_url: str | None) -> dict[str, Any]:
    """The document for a server at `host` (name and port); None leaves its own websocket URL."""
    text = _recorded().replace("{host}", host).replace("{cluster_id}", cluster_id)
    found: dict[str, Any] = json.loads(text)
    if websocket_url is not None:
        found["websocketUrl"] = websocket_url
    return found
