# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A program that follows events with the Python SDK, unchanged: one JSON line per callback.

It finds the server by the discovery document, and polls every `poll` seconds, if not 0, where
there is none. Commands come on standard input, a JSON object each:
`{"subscribe": filters, "last_log_id": id}`, `{"unsubscribe": filters}`, `{"close": true}`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import arvados  # type: ignore[import-untyped]
import arvados.events  # type: ignore[import-untyped]


def main() -> None:
    """Follow until standard input ends."""
    filters, last_log_id, poll = map(json.loads, sys.argv[1:])
    api = arvados.api("v1", cache=False)

    def told(event: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    client = arvados.events.subscribe(api, filters, told, poll, last_log_id)
    for line in sys.stdin:
        command = json.loads(line)
        if "subscribe" in command:
            client.subscribe(command["subscribe"], command.get("last_log_id"))
        elif "unsubscribe" in command:
            client.unsubscribe(command["unsubscribe"])
        else:
            client.close(timeout=5)
            told({"closed": True})


if __name__ == "__main__":
    main()
