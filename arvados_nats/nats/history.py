# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a stream holds, read by batched direct get: no consumer is left on the server.

Pure: the questions and answers of `$JS.API.DIRECT.GET.<stream>` (docs/facts/nats.md "Live plus
history", docs/facts/nats-callout.md 6). `Nats.history` and `Nats.last` send them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from arvados_nats.errors import BadInput, Unavailable

BATCH_BYTES = 4 * 1024 * 1024
"""Far below what a subscription may hold, since the server sends a page without flow control."""

_EOB, _NOTHING, _TOO_MANY = "204", "404", "413"


class Headers(dict[str, str]):
    """Of one message. `size` is what they took: of a name that came twice only the last is here."""

    size = 0


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a stream. `time` is RFC 3339, of the server's clock when it was stored."""

    sequence: int
    subject: str
    time: str
    headers: Mapping[str, str]
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of all of it, as near as they are known."""
        of_headers = self.headers.size if isinstance(self.headers, Headers) else 0
        return len(self.data) + of_headers


Page = tuple[list[StoredMessage], int]
"""Messages, and how many more the server says there are."""


def parse(headers: Mapping[str, str], data: bytes) -> StoredMessage | None:
    """The stored message in an answer; None at the end of a page or if there is none."""
    sequence = headers.get("Nats-Sequence")
    if sequence is None:  # else the status is one that the sender of the message wrote
        status = headers.get("Status")
        if status in (_EOB, _NOTHING):
            return None
        if status == _TOO_MANY:
            raise BadInput("the stream has messages of too many subjects to give the last of each")
        raise Unavailable(f"direct get: {status} {headers.get('Description', '')}")
    return StoredMessage(
        sequence=int(sequence),
        subject=headers["Nats-Subject"],
        time=headers["Nats-Time-Stamp"],
        headers=headers,
        data=data,
    )


def pending(headers: Mapping[str, str]) -> int:
    """How many messages are left, from the answer that ends a page."""
    return int(headers.get("Nats-Num-Pending", 0))


async def read(
    page: Callable[[dict[str, Any]], Awaitable[Page]], first: int, limits: dict[str, Any]
) -> AsyncIterator[StoredMessage]:
    """All messages from sequence `first` on, until none is left now.

    `limits` are `next_by_subj`, `batch` and `max_bytes` of each page; the next page is asked for
    when the last is used up.
    """
    while True:
        messages, left = await page({**limits, "seq": first})
        for message in messages:
            yield message
        if not messages or not left:
            return
        first = messages[-1].sequence + 1
