# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Follow the dispatch queue: the bucket ARVADOS_QUEUE as a whole, and then every change.

What the bucket republishes is heard first and then the bucket is read, so nothing is between the
two. A change that is not the next one, and a connection that was away, make it read anew; what
differs is shown, so the lines always add up to the queue.
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
        self._known: dict[str, bytes] = {}

    def change(self, key: str, entry: QueueEntry | None, value: bytes) -> None:
        """Show what a container is now, unless that was shown."""
        if entry is None:
            if self._known.pop(key, None) is not None:
                self._watch.show([f"{key}  gone"], Gone(key))
        elif self._known.get(key) != value:
            self._known[key] = value
            self._watch.show([line(entry)], entry)

    def only(self, keys: set[str]) -> None:
        """Show as gone what is none of these."""
        for key in self._known.keys() - keys:
            self.change(key, None, b"")


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
    old = 0
    while True:
        try:
            if last is None:
                last = await _read(nats, view)
                await nats.flush()
                old = heard.qsize()
            async with asyncio.timeout(_REREAD_SECONDS):
                message = await heard.get()
        except TimeoutError:
            message = None
        except Unavailable as error:
            watch.notes.tell(f"{error}; trying again")
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        old -= 1
        last = _taken(view, message, last, old=old >= 0)


def _taken(
    view: QueueView, message: Message | None, last: int | None, *, old: bool = False
) -> int | None:
    """Show a message; the last sequence shown, None if what follows it was not heard: something is
    missing, or the bucket is another one. `old`: it was heard before the bucket had been read."""
    if message is None or last is None:
        return None
    sequence = int(message.headers["Nats-Sequence"])
    if old and sequence <= last:
        return last
    if sequence != last + 1:
        return None
    entry = queue_entries.decode(message.headers, message.data)
    view.change(queue_entries.key(message.subject), entry, message.data)
    return sequence


async def _read(nats: Nats, view: QueueView) -> int:
    """Show how the bucket differs from what was shown; its last sequence."""
    info = await nats.stream_info(streams.QUEUE)
    if info is None:
        raise Unavailable("there is no queue yet: does the queue publisher run?")
    last: int = info["state"]["last_seq"]
    found = {}
    async for stored in nats.history(streams.QUEUE, f"{subjects.QUEUE}.>", first=1, until=last):
        last = max(last, stored.sequence)
        entry = queue_entries.decode(stored.headers, stored.data)
        found[queue_entries.key(stored.subject)] = entry, stored.data
    for key, (entry, value) in found.items():
        view.change(key, entry, value)
    view.only({key for key, (entry, _) in found.items() if entry is not None})
    return last
