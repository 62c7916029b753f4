# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How the model says no: an HTTP status and the texts that a real API server would send.

The HTTP API of the sandbox turns a `Refusal` into an answer (golden/api.json, description 6, 7).
"""

from __future__ import annotations

DENIED = "#<ArvadosModel::PermissionDeniedError: ArvadosModel::PermissionDeniedError>"


class Refusal(Exception):
    """The request is refused: HTTP `status` and `messages` as Arvados words them."""

    def __init__(self, status: int, *messages: str) -> None:
        super().__init__(f"{status} {'; '.join(messages)}")
        self.status = status
        self.messages = messages


def denied(*messages: str) -> Refusal:
    """403: the object may be seen but not changed so."""
    return Refusal(403, *(messages or (DENIED,)))


def not_found() -> Refusal:
    """404: unknown, or not readable by the caller; both look alike."""
    return Refusal(404, "Path not found")


def not_logged_in() -> Refusal:
    """401: no token, or one that is not valid (any more)."""
    return Refusal(401, "Not logged in")


def invalid(*messages: str) -> Refusal:
    """422: validation messages, or an inspected exception."""
    return Refusal(422, *messages)


def raised(ruby_class: str, text: str) -> Refusal:
    """422 with an exception shown inspected."""
    return Refusal(422, f"#<{ruby_class}: {text}>")
