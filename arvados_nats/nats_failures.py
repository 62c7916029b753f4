# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the client library's exceptions mean to us; nobody else sees them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import nats.errors

from arvados_nats.errors import BadInput, Unavailable


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what of the library is raised in the block as one of the kinds of `errors`."""
    try:
        yield
    except nats.errors.MaxPayloadError as error:
        raise BadInput("the message is larger than the server's max_payload") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable(f"NATS: {error or type(error).__name__}") from error
