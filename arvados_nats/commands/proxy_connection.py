# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The commands' connection to the WebSocket proxy: notes when it takes long, errors that help."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from arvados_nats.client import stream
from arvados_nats.client.errors import TokenRefused
from arvados_nats.client.stream import State, Stream, Waiting
from arvados_nats.commands import arvados_settings
from arvados_nats.commands.arvados_settings import ArvadosSettings
from arvados_nats.commands.command import Notes
from arvados_nats.errors import ConfigError, Refused, Unavailable

_SILENT_SECONDS = 3.0
_OPEN_TIMEOUT = 10.0
"""How long a proxy that cannot be reached is tried."""


class _Line:
    """Says when the connection stays away, and when it is back."""

    def __init__(self, url: str, notes: Notes) -> None:
        self._url = url
        self._notes = notes
        self._timer: asyncio.TimerHandle | None = None
        self._said = False
        self._reason = ""

    def on_state(self, state: State) -> None:
        if isinstance(state, Waiting):
            self._reason = state.reason
            if self._timer is None and not self._said:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(_SILENT_SECONDS, self._say)
            return
        self.close()
        if self._said:
            self._said = False
            self._notes.tell("connected again")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self) -> None:
        self._timer = None
        self._said = True
        self._notes.tell(f"no connection to {self._url} ({self._reason}); trying again")


@asynccontextmanager
async def connect(
    settings: ArvadosSettings, proxy: str | None, notes: Notes, *, reconnect_timeout: float | None
) -> AsyncIterator[Stream]:
    """A stream to the proxy that was named, or else to the one that the cluster names.

    `reconnect_timeout`: seconds for which a lost connection is tried, None for ever.
    """
    url = await arvados_settings.stream_url(settings, proxy)
    line = _Line(url, notes)
    connection = stream.connect(
        url,
        lambda: settings.token.secret,
        ssl=settings.ssl_context(),
        open_timeout=_OPEN_TIMEOUT,
        reconnect_timeout=reconnect_timeout,
        on_state=line.on_state,
    )
    try:
        with _explained(settings, url):
            async with connection as events:
                yield events
    finally:
        line.close()


def about(uuid: str, error: Refused) -> Refused:
    """The refusal of a subscription, with the object's name; of the token it stays as it is."""
    if isinstance(error, TokenRefused):
        return error
    refused = Refused(f"{uuid}: {error}")
    refused.__cause__ = error
    return refused


@contextlib.contextmanager
def _explained(settings: ArvadosSettings, url: str) -> Iterator[None]:
    """Errors of the stream, with what to do about them."""
    try:
        yield
    except TokenRefused as error:
        raise Refused(
            f"Arvados at {settings.host} does not accept the token ({error}). Get another one in"
            " Workbench (Get API token) and set ARVADOS_API_TOKEN"
        ) from error
    except Unavailable as error:
        raise Unavailable(
            f"cannot reach the message proxy at {url}: {error}. Ask whether it runs, or name"
            " another with --proxy"
        ) from error
    except ConfigError as error:
        raise ConfigError(
            f"no message proxy is found at {url}: {error}. Set Services.Websocket.ExternalURL of"
            " the cluster to the proxy, or name it with --proxy"
        ) from error
