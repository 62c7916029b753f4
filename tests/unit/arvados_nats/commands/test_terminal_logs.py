# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The flow of `arvados-nats logs`: from messages, however they are cut, to what is printed."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.client.subscription_handle import SubscriptionHandle
from arvados_nats.client.subscriptions import LogSubscription
from arvados_nats.commands import logs
from arvados_nats.commands.command import Notes
from arvados_nats.commands.log_lines.output import LogOutput, Look
from arvados_nats.commands.log_lines.printers import Copy, Merged
from arvados_nats.commands.logs import LogSelection, Show
from arvados_nats.protocol_v1.messages import (
    Attempt,
    CaughtUp,
    End,
    Gap,
    Log,
    ServerMessage,
    Subscribed,
)
from arvados_nats.protocol_v1.messages import Error as ServerError

C1, C2 = "zzzzz-dz642-000000000000001", "zzzzz-dz642-000000000000002"
REQUEST = "zzzzz-xvhdp-000000000000001"


@dataclass
class Screen:
    """What was printed, and what was said beside it."""

    printed: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.printed += data


async def _nothing(_: SubscriptionHandle) -> None:
    """Nobody to unsubscribe at."""


async def shown(
    wanted: LogSelection, messages: Sequence[ServerMessage], *, copy: bool = False
) -> bytes:
    """What is printed of these messages, as they come from a server."""
    screen = Screen()
    notes = Notes()
    printer = Copy(screen.write) if copy else Merged(screen.write, LogOutput(Look()), notes)
    subscription = LogSubscription(wanted.uuid, wanted.files or None)
    handle = SubscriptionHandle("1", subscription, _nothing)

    async def feed() -> None:
        for message in messages:
            fresh = subscription.take(message)
            if fresh is not None:
                await handle.put(fresh)
        if subscription.ended:
            handle.finish(None)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(feed())
        await Show(wanted, printer, notes).run(handle)
        feeding.cancel()
    return bytes(screen.printed)


def log(offset: int, data: bytes, *, file: str = "a", container: str = C1) -> Log:
    return Log.of(container, file, 0, offset, data)


CUTS = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 90)), max_size=12)


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=200), CUTS)
async def test_bytes_survive_any_cutting(
    one: bytes, two: bytes, cuts: list[tuple[int, int]]
) -> None:
    """Frames that overlap and repeat, as reconnects make them: each file is printed exactly."""
    files = {"a": one, "b": two}
    messages: list[ServerMessage] = []
    for file, data in files.items():
        messages.extend([log(0, data[:1], file=file)] if data else [])
        messages.extend([log(o, data[o : o + n], file=file) for o, n in cuts if o < len(data)])
        place = LogSubscription(C1)
        for message in messages:
            place.take(message)
        behind = place.places.get(file, (0, 0))[1]
        messages.append(log(max(behind - 5, 0), data[max(behind - 5, 0) :], file=file))
    end: list[ServerMessage] = [CaughtUp("1"), End(container=C1, state="Complete")]
    for file, data in files.items():
        wanted = LogSelection(C1, files=(file,), follow=True)
        assert await shown(wanted, [*messages, *end], copy=True) == data
        assert await shown(wanted, [*messages, *end]) == data


async def test_without_following_it_ends_when_all_is_shown() -> None:
    """The container still runs; what it has written is printed, half lines too."""
    messages: list[ServerMessage] = [Subscribed("1"), log(0, b"one\ntw"), CaughtUp("1")]
    assert await shown(LogSelection(C1), messages) == b"one\ntw"


async def test_without_following_it_ends_though_lines_go_on_coming() -> None:
    """A container that never stops writing does not keep the command from its end."""

    async def write(handle: SubscriptionHandle) -> None:
        for number in itertools.count():
            await handle.put(log(5 * number, b"line\n"))
            await asyncio.sleep(0.01)

    screen, notes = Screen(), Notes()
    handle = SubscriptionHandle("1", LogSubscription(C1), _nothing)
    await handle.put(CaughtUp("1"))
    writing = asyncio.create_task(write(handle))
    async with asyncio.timeout(60):
        await Show(LogSelection(C1), Copy(screen.write), notes).run(handle)
    writing.cancel()
    assert bytes(screen.printed).startswith(b"line\n")


async def test_history_that_is_late_is_waited_for() -> None:
    """A subscription that is there and silent has not said that there is nothing."""

    async def later(handle: SubscriptionHandle) -> None:
        await asyncio.sleep(3 * logs._MORE_SECONDS)
        await handle.put(log(0, b"late\n"))
        await handle.put(CaughtUp("1"))

    screen, notes = Screen(), Notes()
    handle = SubscriptionHandle("1", LogSubscription(C1), _nothing)
    await handle.put(Subscribed("1"))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(later(handle))
        await Show(LogSelection(C1), Copy(screen.write), notes).run(handle)
    assert bytes(screen.printed) == b"late\n"


async def test_request_without_a_container_is_not_waited_for() -> None:
    """Nothing is there, which the server says, and nothing will come at once."""
    assert await shown(LogSelection(REQUEST), [Subscribed("1"), CaughtUp("1")]) == b""


async def test_retry_while_reading_shows_both(capsys: pytest.CaptureFixture[str]) -> None:
    """The end of one attempt is not the end; the other's history is waited for."""
    messages: list[ServerMessage] = [
        Subscribed("1"),
        Attempt("1", REQUEST, C1, 1),
        log(0, b"first, half"),
        CaughtUp("1"),
        End(container=C1, state="Cancelled"),
        Attempt("1", REQUEST, C2, 2),
        log(0, b"second\n", container=C2),
        CaughtUp("1"),
    ]
    assert await shown(LogSelection(REQUEST), messages) == b"first, half\nsecond\n"
    assert capsys.readouterr().err == f"arvados-nats: attempt 2: container {C2}\n"


LATE: list[ServerMessage] = [
    Subscribed("1"),
    Attempt("1", REQUEST, C1, 1),
    log(0, b"first, ha"),
    CaughtUp("1"),
    Attempt("1", REQUEST, C2, 2),
    log(0, b"second\n", container=C2),
    CaughtUp("1"),
    log(9, b"lf\nlast words"),
    End(container=C1, file="a", size=22, confirmed=False),
    End(container=C1, state="Cancelled"),
    log(7, b"third\n", container=C2),
    End(container=C2, state="Complete"),
    End(request=REQUEST),
]


async def test_late_bytes_of_a_former_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines are shown when they come and stay whole; a copy has one attempt after the other."""
    wanted = LogSelection(REQUEST, follow=True)
    lines = (await shown(wanted, LATE)).splitlines()
    assert sorted(lines) == [b"first, half", b"last words", b"second", b"third"]
    assert capsys.readouterr().err.splitlines() == [
        f"arvados-nats: attempt 2: container {C2}",
        f"arvados-nats: more of the log of the attempt before: container {C1}",
        f"arvados-nats: {C1} a: no saved log confirms that this was all",
    ]
    copied = await shown(wanted, LATE, copy=True)
    assert copied == b"first, half\nlast wordssecond\nthird\n"
    cut = await shown(LogSelection(REQUEST), LATE[:8], copy=True)
    assert cut == b"first, half\nlast wordssecond\n"


async def test_what_is_missing_is_said_where_it_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bytes that nobody has, an end that nobody confirmed, a server that has to wait."""
    messages: list[ServerMessage] = [
        log(0, b"one\n"),
        Gap("1", "the node is gone", C1, "a", 0, 4, 10),
        ServerError("unavailable", "Arvados is away", True, "1"),
        log(10, b"tw"),
        CaughtUp("1"),
        Gap("1", "lost", C1, "a", 0, 12, 13),
        log(13, b"\n"),
        Gap("1", "lost", C1, "a", 0, 14, None),
        CaughtUp("1"),
        End(container=C1, file="a", size=14, confirmed=False),
        End(container=C1, state="Cancelled", confirmed=False),
    ]
    assert await shown(LogSelection(C1, follow=True), messages) == b"one\ntw\n\n"
    assert capsys.readouterr().err.splitlines() == [
        "arvados-nats: a: bytes 4 to 10 are missing: the node is gone",
        "arvados-nats: Arvados is away; trying again",
        "arvados-nats: a: bytes 12 to 13 are missing: lost",
        "arvados-nats: a: bytes 14 to the end are missing: lost",
        "arvados-nats: a: no saved log confirms that this was all",
    ]


async def test_what_a_container_names_acts_on_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Not in what is said beside the log either."""
    evil = "\x1b[2J\x07\u202ea\nb"
    messages: list[ServerMessage] = [
        Gap("1", f"gone {evil}", C1, evil, 0, 4, 10),
        CaughtUp("1"),
        End(container=C1, file=evil, size=14, confirmed=False),
        End(container=C1, state="Cancelled", confirmed=False),
    ]
    await shown(LogSelection(C1, follow=True), messages)
    said = capsys.readouterr().err
    assert said.count("^G<U+202E>a") == 3
    assert not set(said) & set("\x1b\x07\u202e")


async def test_progress_is_shown_on_a_terminal_and_taken_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While long history loads; into a file nothing is written of it."""
    monkeypatch.setattr(logs, "_PROGRESS_SECONDS", 0.0)
    messages: list[ServerMessage] = [log(0, b"x" * 2_000_000), CaughtUp("1"), End(container=C1)]
    await shown(LogSelection(C1, follow=True), messages)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    await shown(LogSelection(C1, follow=True), messages)
    assert capsys.readouterr().err == "\r\x1b[Kreading the log … 2.0 MB\r\x1b[K"
