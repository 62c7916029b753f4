# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the client library's exceptions mean to us, and the cancellations that it swallows.

Nobody else sees either.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping

import nats.errors

from arvados_nats.errors import BadInput, Unavailable, said

_UNSENDABLE = (
    nats.errors.MaxPayloadError,
    nats.errors.BadSubjectError,
    nats.errors.BadHeaderError,
    UnicodeError,
)
_CLOSED = "the handler is closed"
"""uvloop says so, by a plain RuntimeError, of a transport that the other side has just closed."""
_LONGEST_SUBJECTS = 3 * 1024
"""Bytes of subject and reply together: a server's default max_control_line is 4 KiB."""
_HEADER_FRAME = len(b"NATS/1.0\r\n\r\n")
_HEADER_LINE_FRAME = len(b": \r\n")


def require_sendable(
    subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None, max_payload: int
) -> None:
    """BadInput for a message for which the server would end the connection, as for a larger one
    than `max_payload`: headers count, and the client library looks at the data alone."""
    try:
        names, size = len(f"{subject}{reply}".encode()), len(data)
        if headers:
            size += len("".join((*headers, *headers.values())).encode())
            size += len(headers) * _HEADER_LINE_FRAME + _HEADER_FRAME
    except UnicodeError as error:
        raise BadInput(f"the message cannot be sent: {said(error)}") from error
    if size > max_payload:
        raise BadInput(f"the message has {size} bytes with its headers, over {max_payload}")
    if names > _LONGEST_SUBJECTS:
        raise BadInput(f"the subject has {names} bytes, over {_LONGEST_SUBJECTS}")


@contextlib.contextmanager
def cancellable() -> Iterator[None]:
    """Raise CancelledError after the block if the task was cancelled in it and nobody noticed.

    nats-py's `_flush_pending`, where all that is sent waits while NATS is slow, ends in
    `except CancelledError: pass`. What was cancelled before the block is left alone: clean-up code
    sends, too.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    yield
    if task and task.cancelling() > before:
        raise asyncio.CancelledError


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what of the library is raised in the block as one of the kinds of `errors`."""
    try:
        with cancellable():
            yield
    except _UNSENDABLE as error:
        raise BadInput(f"the message cannot be sent: {said(error)}") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable(f"NATS: {said(error)}") from error
    except RuntimeError as error:
        if _CLOSED not in said(error):
            raise
        raise Unavailable("NATS: the connection was closed") from error
