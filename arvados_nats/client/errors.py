# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Why a connection to the proxy is not there, and whether coming back can help.

Pure. Close codes of the band 4000-4499 are the server's business, those of 4500-4999 the client's
(docs/protocol-v1.md).
"""

from __future__ import annotations

import os
import socket
import ssl

from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, NegotiationError

from arvados_nats.errors import BadInput, ConfigError, Refused

TOKEN_INVALID = 4501
_AUTH_TIMEOUT = 4502
"""The token was sent at once: the server could not look at it in time, which may pass."""
_NO_UPGRADE = b"not websocket protocol"
"""What wsproxy and arvados-ws answer to plain HTTP."""
_FINAL = frozenset(range(4500, 5000)) - {_AUTH_TIMEOUT}


CERTIFICATES = " (SSL_CERT_FILE names a file of the certificates to trust)"


class TokenRefused(Refused):
    """mistyped, expired or deleted"""


def code_of(error: ConnectionClosed) -> int:
    return error.rcvd.code if error.rcvd else 1006


def why_closed(error: ConnectionClosed) -> str:
    """Why the connection is gone; raises Refused if there is no use in coming back."""
    code = code_of(error)
    reason = error.rcvd.reason if error.rcvd else ""
    if code in _FINAL and code != TOKEN_INVALID:
        raise Refused(reason or f"the server closed with code {code}") from error
    return reason or "the connection was lost"


def why_not_open(error: Exception, *, first: bool) -> str:
    """Why there is no connection; raises ConfigError if the address cannot be right."""
    match error:
        case ssl.SSLCertVerificationError():
            reason = (
                f"the server's certificate is not trusted: {error.verify_message}{CERTIFICATES}"
            )
        case InvalidStatus():
            status = error.response.status_code
            if status >= 500 or status == 429:
                return f"the server answers {status}"
            reason = f"the server answers {status} instead of opening a WebSocket"
            if _NO_UPGRADE in (error.response.body or b""):
                reason = "a proxy on the way does not forward WebSockets (its Upgrade header)"
        case InvalidURI() | NegotiationError() | BadInput():
            reason = str(error)
        case _:
            return _words(error)
    if first:
        raise ConfigError(reason) from error
    return reason


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
