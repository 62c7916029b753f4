# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The four kinds of failure, named after what the one who catches them does.

::

    ArvadosNatsError
    ├── Refused       the caller may not: answer no, count, log at info, do not retry
    ├── Unavailable   a dependency is down: back off and retry; decides nothing about permission
    ├── BadInput      this one message is wrong: drop, count, carry on
    └── ConfigError   stop with exit code 2 and name the setting
        └── Disagreement  another machine disagrees with a setting: say so, and retry

Only the edges (`arvados_nats.arvados`, `arvados_nats.nats`, `publishers.postgres`) see the
exceptions of the libraries below them; they raise one of these, always `from` the original.
"""

from __future__ import annotations

import msgspec


class ArvadosNatsError(Exception):
    """The message facility failed."""

    def __init__(self, message: str | None = None) -> None:
        text = (message or "").strip() or (type(self).__doc__ or "").partition("\n")[0]
        super().__init__(text)


class Refused(ArvadosNatsError):
    """The token does not allow this."""


class Unavailable(ArvadosNatsError):
    """A service that is needed for the answer does not answer."""


class BadInput(ArvadosNatsError):
    """The message cannot be understood."""


class ConfigError(ArvadosNatsError):
    """A setting is missing or wrong."""


class Disagreement(ConfigError):
    """Another machine does not agree with a setting: one of the two is wrong, or not ready yet."""


def said(error: BaseException) -> str:
    """What an exception says, in one line that is never empty: many say nothing at all."""
    text = str(error).strip().partition("\n")[0]
    if text and text not in ("()", "''"):
        return text
    if isinstance(error, TimeoutError) or "timeout" in type(error).__name__.lower():
        return f"no answer in time ({type(error).__name__})"
    return type(error).__name__


MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON wanted: of its own exceptions only where they
are UTF-8 and not nested too deeply."""
