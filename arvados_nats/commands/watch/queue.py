# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Follow the dispatch queue: the bucket ARVADOS_QUEUE as a whole, and then every change.

What the bucket republishes is heard first and then the bucket is read, so nothing is between the
two. A change whose predecessor was not heard, and a connection that was away, make it read anew;
what differs is shown, so the lines always add up to the queue.
"""

from __future__ import annotations

import asyncio

import msgspec

from arvados_nats.commands import nats_login
from arvados_nats.commands.watch.events import Watch
from arvados_nats.contract import queue_entries, streams, subjects
from arvados_nats.contract.queue_entries import QueueEntry
from arvados_nats.errors import Unavailable
from arvados_nats.nats.client import Message, Nats

_RETRY_SECONDS = 1.0
_REREAD_SECONDS = 10.0
"""A lost last change shows no hole."""
_SCALE = 2**50
"""Arvados multiplies the priority of a user's request by this (docs/facts/arvados.md 5)."""


class Gone(msgspec.Struct, frozen=True):
    """A container that does not wait or run any more."""

    uuid: str
    gone: bool = True


class QueueView:
    """The queue as it was shown."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._known: dict[str, tuple[int, bytes]] = {}
        self._created = ""

    def of(self, created: str, last: int) -> None:
        """What follows is of the bucket that was created then and ends there: another one counts
        from 1 again, and so does one that has lost its messages alone."""
        lost = any(sequence > last for sequence, _ in self._known.values())
        if created != self._created or lost:
            self._created = created
            self._known = {key: (0, value) for key, (_, value) in self._known.items()}

    def change(self, key: str, sequence: int, entry: QueueEntry | None, value: bytes) -> None:
        """Show a change, unless it or a later one of the same container was shown."""
        known = self._known.get(key)
        if known is not None and known[0] >= sequence:
            return
        if entry is None:
            if self._known.pop(key, None) is not None:
                self._watch.show([f"{key}  gone"], Gone(key))
        elif known is None or known[1] != value:
            self._known[key] = (sequence, value)
            self._watch.show([line(entry)], entry)
        else:
            self._known[key] = (sequence, value)

    def only(self, keys: set[str], sequence: int) -> None:
        """Show as gone what is none of these."""
        for key in [key for key in self._known if key not in keys]:
            self.change(key, sequence, None, b"")


def line(entry: QueueEntry) -> str:
    """One container as a line for people."""
    priority = int(entry.priority)
    shown = f"{-(-priority // _SCALE)}" if priority > 0 else "on hold"
    constraints = entry.runtime_constraints if isinstance(entry.runtime_constraints, dict) else {}
    wants = " ".join(
        f"{name}={constraints[name]}" for name in ("vcpus", "ram") if name in constraints
    )
    holder = f"  locked by {entry.locked_by_uuid}" if entry.locked_by_uuid else ""
    return f"{entry.uuid}  {entry.state:<7}  priority {shown}  {wants}{holder}".rstrip()


async def watch_queue(watch: Watch, nats_url: str) -> None:
    """Show the queue and its changes until interrupted; Refused without an admin's token."""
    who = await nats_login.holder_of(watch.settings)
    await nats_login.require_admin(nats_url, watch.settings.token, who, "the queue")
    async with nats_login.login(nats_url, watch.settings.token, who) as nats:
        await _follow(nats, watch, QueueView(watch))


async def _follow(nats: Nats, watch: Watch, view: QueueView) -> None:
    heard: asyncio.Queue[Message | None] = asyncio.Queue()
    nats.on_change(lambda connected: heard.put_nowait(None) if connected else None)
    await nats.subscribe(f"{subjects.STORED_QUEUE}.>", heard.put)
    await nats.flush()
    last: int | None = None
    while True:
        try:
            if last is None:
                last = await _read(nats, view)
            async with asyncio.timeout(_REREAD_SECONDS):
                message = await heard.get()
        except TimeoutError:
            message = None
        except Unavailable as error:
            watch.notes.tell(f"{error}; trying again")
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        last = _taken(view, message, last)


def _taken(view: QueueView, message: Message | None, last: int | None) -> int | None:
    """Show a message; the last sequence shown, None if something is missing before it."""
    if message is None or last is None:
        return None
    sequence = int(message.headers["Nats-Sequence"])
    if sequence <= last:
        return last
    if sequence > last + 1:
        return None
    entry = queue_entries.decode(message.headers, message.data)
    view.change(queue_entries.key(message.subject), sequence, entry, message.data)
    return sequence


async def _read(nats: Nats, view: QueueView) -> int:
    """Show how the bucket differs from what was shown; its last sequence."""
    info = await nats.stream_info(streams.QUEUE)
    if info is None:
        raise Unavailable("there is no queue yet: does the queue publisher run?")
    last: int = info["state"]["last_seq"]
    view.of(info["created"], last)
    keys = set()
    async for stored in nats.history(streams.QUEUE, f"{subjects.QUEUE}.>"):
        last = max(last, stored.sequence)
        key = queue_entries.key(stored.subject)
        entry = queue_entries.decode(stored.headers, stored.data)
        if entry is not None:
            keys.add(key)
        view.change(key, stored.sequence, entry, stored.data)
    view.only(keys, last + 1)
    return last
