# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who follows a container's log files, as the files and their hub see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from wsproxy.logs.place import LogPlace
from wsproxy.logs.saved import Access
from wsproxy.transport.frames import Message
from wsproxy.transport.send_buffer import SendBuffer


class Follower(Protocol):
    """A consumer of log files; it is live in some and behind in others."""

    send_buffer: SendBuffer
    access: Access

    @property
    def send(self) -> Callable[[Message], None]:
        """Writes a frame that is the same for all who are live."""

    def fall_behind(self, name: str, place: LogPlace) -> None:
        """The live ones went on in a file without this one, which is at `place`."""

    def reached(self, name: str) -> None:
        """A file has grown that was not yet where this one begins."""

    def wake(self) -> None:
        """Look whether there is something to do."""
