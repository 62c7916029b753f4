# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who reads log folders: a token and a request, kept for a moment after each question.

Workbench asks every two seconds. Between two questions nothing is learned anew: the token's login,
the request's record and the folder stay, followed as those of a socket are, and each question is
judged by what is known at its moment. A reader has a place among the connections of its user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Refused, Unavailable
from arvados_nats.permissions.grant_subjects import Change
from wsproxy.log_folder.ahead import Ahead
from wsproxy.log_folder.folder import Folder
from wsproxy.logins.logins import Login
from wsproxy.logs.saved import Access
from wsproxy.objects import state as object_state
from wsproxy.services import Services
from wsproxy.transport.frames import Message
from wsproxy.transport.limits import Place

LINGER_SECONDS = 30.0
_ADMIT_SECONDS = 5.0
_COMMITTED = "Committed"


class _NoWire:
    """What a reader's connection sends by itself: nothing. Its end is the reader's."""

    unsent = 0

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def encode(self, message: Message) -> bytes:
        return b""

    def write(self, pieces: Sequence[bytes]) -> None:
        """Nothing is ever sent."""

    def close(self, code: int, reason: str) -> None:
        self._reader.end()

    def abort(self) -> None:
        self._reader.end()


class Reader:
    """One token that reads the log of one request: to `Logins` a session, to `Connections` a
    connection."""

    def __init__(self, readers: Readers, token: Token, request: str, place: Place) -> None:
        self._readers = readers
        self._services = readers.services
        self._request = request
        self._access = Access(token, request)
        self.place = place
        place.evict = self.end
        self.send_buffer = self._services.transport.send_buffers.open(_NoWire(self))
        self._record = self._services.objects.open(request)
        self._login: Login | None = None
        self._admitting: asyncio.Task[Login] | None = None
        self._folder: Folder | None = None
        self._under_way = 0
        self._used_at = asyncio.get_running_loop().time()
        self._over = False

    @property
    def access(self) -> Access:
        return self._access

    async def folder(self, container: str) -> Folder:
        """The folder of the request's present container, if the reader may see it now.

        Refused if not; Unavailable where nobody can tell, and of a request that is final.
        """
        login = await self._admitted()
        state = await self._record.load(login.token)
        if state["container_uuid"] != container or state["state"] != _COMMITTED:
            raise Unavailable("not the container that the request runs now")
        if self._over:
            raise Unavailable("the reader has gone")
        facts = object_state.facts(state)
        if not await self._services.readable.logs(
            login, self._request, facts, self._moved, container=container
        ):
            raise Refused
        if self._over:
            raise Unavailable("the reader has gone")
        if self._folder is None or self._folder.container != container:
            if self._folder is not None:
                self._readers.close(self._request, self._folder)
            self._folder = self._readers.open(self._request, container)
        return self._folder

    async def _admitted(self) -> Login:
        if self._login is None:
            if self._admitting is None:
                admitting = self._services.logins.admit(self._access.token, self)
                self._admitting = asyncio.create_task(admitting, name="log folder")
                self._admitting.add_done_callback(self._known)
            async with asyncio.timeout(_ADMIT_SECONDS):
                return await asyncio.shield(self._admitting)
        return self._login

    def _known(self, task: asyncio.Task[Login]) -> None:
        self._admitting = None
        if task.cancelled() or task.exception():
            self.end()
        elif self._over:
            self._services.logins.release(task.result(), self)
        else:
            self._login = task.result()

    def _moved(self) -> None:
        """Nothing is on its way to this reader that could be called back."""

    # Its life.

    def __enter__(self) -> Reader:
        self._under_way += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._under_way -= 1
        self._used_at = asyncio.get_running_loop().time()
        if kind is not None and issubclass(kind, Refused):
            self.end()

    def tick(self, now: float) -> None:
        if not self._under_way and now - self._used_at > LINGER_SECONDS:
            self.end()

    def drain(self) -> None:
        self.end()

    def ended(self, reason: str) -> None:
        self.end()

    def narrowed(self, change: Change) -> None:
        """Each question is judged anew."""

    def end(self) -> None:
        """Free everything."""
        if self._over:
            return
        self._over = True
        self._readers.forget(self._access.token, self._request, self)
        self._services.readable.forget(self._moved)
        self._services.objects.close(self._request)
        if self._folder is not None:
            self._readers.close(self._request, self._folder)
        if self._login is not None:
            self._services.logins.release(self._login, self)
        self.place.leave()
        self.send_buffer.gone()


class Readers:
    """All readers of the process, and the folders that they share."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._readers: dict[tuple[bytes, str], Reader] = {}
        self._ahead = Ahead()
        self._folders: dict[tuple[str, str], tuple[Folder, int]] = {}

    def of(self, token: Token, request: str, address: str) -> Reader:
        """The reader; TooMany if there is no place for another."""
        key = (token.digest, request)
        reader = self._readers.get(key)
        if reader is None:
            place = self.services.transport.tally.enter(address)
            reader = self._readers[key] = Reader(self, token, request, place)
            self.services.transport.connections.add(reader)
        return reader

    def forget(self, token: Token, request: str, reader: Reader) -> None:
        """This one has ended."""
        self._readers.pop((token.digest, request), None)
        self.services.transport.connections.remove(reader)

    def open(self, request: str, container: str) -> Folder:
        """The folder, for one more reader; `close` must follow."""
        folder, users = self._folders.get((request, container), (None, 0))
        folder = folder or Folder(self.services, self._ahead, request, container)
        self._folders[request, container] = (folder, users + 1)
        return folder

    def close(self, request: str, folder: Folder) -> None:
        """One reader less."""
        key = (request, folder.container)
        _, users = self._folders.pop(key)
        if users > 1:
            self._folders[key] = (folder, users - 1)
        else:
            folder.close()
