# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The subscriptions of one v0 connection, and which events they let through.

Pure. A subscription without `last_log_id` takes what is stored after it was made. One with it takes
what is stored after that row's place in the stream, late commits included (design.md 4), and is
asleep until the place is known. Going back over events that other subscriptions of the connection
have shown already shows none of them again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from wsproxy.events.stored_event import StoredEvent
from wsproxy.transport.limits import Kept
from wsproxy.v0.messages import Subscribe

ASLEEP = sys.maxsize


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription: it takes events after `after`, and has already shown those to `shown`."""

    wanted: Subscribe
    after: int
    shown: int = 0
    after_id: int | None = None
    """Where the row's place was not found: rows with a higher id are taken, as arvados-ws does."""

    def takes_all(self, sequence: int) -> bool:
        """Whether it wants all events from `sequence` on."""
        return not self.wanted.tests and sequence > self.after and self.after_id is None

    def matches(self, stored: StoredEvent) -> bool:
        if stored.sequence <= self.after:
            return False
        if self.after_id is not None and stored.event.id <= self.after_id:
            return False
        tests = self.wanted.tests
        return not tests or self.wanted.matches(stored.event)


class SessionV0:
    """All subscriptions of one connection, in the order in which they were made."""

    def __init__(self, limit: int, kept_bytes: int) -> None:
        self._limit = limit
        self._kept_bytes = kept_bytes
        self._subscriptions: list[Subscription] = []
        self._kept: Kept | None = None
        self._shown = 0

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def first_place(self) -> int | None:
        """The oldest place from which a subscription that is awake wants events."""
        return min((s.after for s in self._subscriptions if s.after != ASLEEP), default=None)

    @property
    def wants_narrowed(self) -> bool:
        """Whether the client asked to be told when it may read less."""
        return any(subscription.wanted.narrowed for subscription in self._subscriptions)

    def subscribe(self, wanted: Subscribe, position: int) -> Subscription | None:
        """Add a subscription; `position` is the last event now. None beyond the limits."""
        kept = sum(self._weights())
        if len(self._subscriptions) >= self._limit or kept + wanted.weight > self._kept_bytes:
            return None
        if self._kept and not self._kept.take([wanted.weight]):
            return None
        subscription = Subscription(wanted, ASLEEP if wanted.last_log_id else position)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, filters: bytes) -> Subscription | None:
        """Remove the first subscription with equal filters; None if there is none."""
        for index, subscription in enumerate(self._subscriptions):
            if subscription.wanted.filters == filters:
                del self._subscriptions[index]
                if self._kept:
                    self._kept.give([subscription.wanted.weight])
                return subscription
        return None

    def _weights(self) -> Iterator[int]:
        return (subscription.wanted.weight for subscription in self._subscriptions)

    def admitted(self, kept: Kept) -> bool:
        """It is known whose they are; False if that user has too many already."""
        self._kept = kept if kept.take(self._weights()) else None
        return self._kept is not None

    def end(self) -> None:
        """The connection is over."""
        if self._kept:
            self._kept.give(self._weights())
        self._subscriptions.clear()

    def begin_replay(
        self, subscription: Subscription, after: int, after_id: int | None, position: int
    ) -> None:
        """Wake a subscription that begins after `after`; the connection stands at `position`."""
        for other in self._subscriptions:
            if other.after != ASLEEP:
                other.shown = max(other.shown, position)
        self._shown = max(self._shown, position)
        subscription.after, subscription.after_id = after, after_id

    def forget_places(self) -> None:
        """The stream was made anew: all that is in it now is news."""
        self._shown = 0
        for subscription in self._subscriptions:
            subscription.after, subscription.shown, subscription.after_id = 0, 0, None

    def lets_all_through(self, sequence: int) -> bool:
        """Whether everything from `sequence` on is news, and wanted by one subscription."""
        if sequence <= self._shown:
            return False
        for subscription in self._subscriptions:
            if subscription.takes_all(sequence):
                return True
        return False

    def lets_through(self, stored: StoredEvent) -> bool:
        """Whether some subscription wants an event that the connection has not shown yet."""
        if stored.sequence > self._shown:
            # Once for each event and connection: no generator here.
            for subscription in self._subscriptions:
                if subscription.matches(stored):
                    return True
            return False
        matching = [s for s in self._subscriptions if s.matches(stored)]
        return bool(matching) and all(s.shown < stored.sequence for s in matching)
