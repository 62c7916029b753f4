# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Refusals of the API server, worded as the recorded Rails server words them.

Almost every refusal is 422; 403 is for permission, 404 for not readable or unknown, 401 for no
valid token (golden/api.json, description 6 and 7). Texts are either validation messages or the
inspected exception `#<Class: text>`; the request id follows in parentheses.
"""

from __future__ import annotations

import secrets
import time


class ApiError(Exception):
    """The request is refused: HTTP status, messages, and whether the request id is added."""

    def __init__(self, status: int, *messages: str, plain: bool = False) -> None:
        super().__init__(f"{status} {'; '.join(messages)}")
        self.status = status
        self.messages = messages
        self.plain = plain

    def body(self, request_id: str) -> dict[str, object]:
        """The JSON body of the answer."""
        if self.plain:
            return {"errors": list(self.messages)}
        errors = [f"{message} ({request_id})" for message in self.messages]
        return {"errors": errors, "error_token": f"{int(time.time())}+{secrets.token_hex(4)}"}


def inspected(status: int, ruby_class: str, text: str) -> ApiError:
    """An exception that Rails shows inspected."""
    return ApiError(status, f"#<{ruby_class}: {text}>")


def argument_error(text: str) -> ApiError:
    """A parameter that can not be understood."""
    return inspected(422, "ArgumentError", text)


def not_found() -> ApiError:
    """Unknown path, unknown object, or one that the caller may not see: all look alike."""
    return ApiError(404, "Path not found")


def not_logged_in() -> ApiError:
    """No token, or one that is not valid (any more)."""
    return ApiError(401, "Not logged in")


def forbidden() -> ApiError:
    """The token is valid but not for this."""
    return ApiError(403, "Forbidden")


def permission_denied(text: str = "ArvadosModel::PermissionDeniedError") -> ApiError:
    """The caller may see the object but not do this with it."""
    return inspected(403, "ArvadosModel::PermissionDeniedError", text)
