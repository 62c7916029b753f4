# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Write the table of bounds in docs/threat-model.md from the code: `python -m tools.make_bounds`.

`tests/hostile/test_bounds.py` holds the page equal to what this makes, and walks the table row by
row against running services.
"""

from __future__ import annotations

import sys
from dataclasses import astuple, dataclass
from pathlib import Path

from arvados_nats.arvados import identities
from arvados_nats.contract import log_chunks, streams
from arvados_nats.nats import accounts_config
from arvados_nats.service import door
from authcallout import admissions, connections
from authcallout.settings import Settings as CalloutSettings
from wsproxy.log_folder import ahead, folder, readers
from wsproxy.log_folder import routes as log_folder
from wsproxy.logs import hub
from wsproxy.logs import search as log_search
from wsproxy.native_api import answers, reply
from wsproxy.page import processes, search, site
from wsproxy.settings import Settings
from wsproxy.transport import fragments, inbound, kernel, limits, send_buffer
from wsproxy.v0 import connection as v0
from wsproxy.v0 import messages as v0_messages
from wsproxy.v1 import session as v1
from wsproxy.wamp import calls as wamp_calls
from wsproxy.wamp import connection as wamp_connection
from wsproxy.wamp import session as wamp

PAGE = Path(__file__).parents[1] / "docs" / "threat-model.md"
BEGIN, END = "<!-- bounds: made by tools/make_bounds.py -->", "<!-- end of bounds -->"
COLUMNS = (
    "sender",
    "door",
    "a message",
    "its headers",
    "a second",
    "at once",
    "without progress",
    "kept for it",
    "beyond",
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one kind of sender may have of one door."""

    sender: str
    door: str
    message: str
    headers: str
    pace: str
    at_once: str
    time: str
    kept: str
    beyond: str


def _size(number: int) -> str:
    for unit, name in ((1024**2, "MiB"), (1024, "KiB")):
        if number >= unit and number % unit == 0:
            return f"{number // unit:,} {name}"
    return f"{number:,} bytes"


def _of(field: str) -> int:
    return int(Settings.model_fields[field].default)


def rows() -> list[Bounds]:
    """The table, in the order of the page."""
    return [*_http(), *_sockets(), *_nats()]


def _http() -> list[Bounds]:
    places = f"{_of('max_unknown_connections'):,} unknown in all (shared with sockets)"
    allowance = identities.OF_ADDRESS
    guesses = (
        f"{allowance.burst:.0f} refused tokens of an address, {allowance.per_second:.0f}/s more;"
        f" then {identities.TURNS} questions at once,"
        f" {identities.TURNS / identities.TURN_SECONDS:.0f} a second in all"
    )
    head = _size(door.HEAD_BYTES)
    return [
        Bounds(
            "anybody",
            "HTTP until a whole request is there",
            head,
            head,
            "-",
            f"{door.WAITING:,} connections",
            f"{door.HEAD_SECONDS:.0f} s",
            head,
            "400; dropped, the longest waiting of the network with most",
        ),
        Bounds(
            "anybody",
            "HTTP answers",
            "none is read",
            "as above",
            "-",
            f"{door.ANSWERING:,} connections",
            f"{door.ANSWER_SECONDS:.0f} s to read the answer",
            _size(send_buffer.HIGH_WATER),
            "dropped, the longest there of the network with most",
        ),
        Bounds(
            "no token, or a refused one",
            "server-sent events",
            "none",
            head,
            guesses,
            places,
            f"{limits.UNKNOWN_SECONDS:.0f} s for its token",
            head,
            "401; 503 where it is not known in time",
        ),
        Bounds(
            "a user's or the anonymous token",
            "server-sent events",
            "none",
            head,
            "-",
            f"{_of('max_connections_per_user'):,} of one user, {_of('max_connections'):,} in all"
            " (shared with sockets)",
            f"{send_buffer.NO_PROGRESS_SECONDS:.0f} s without a byte taken",
            f"{_size(2 * send_buffer.HIGH_WATER)} unsent and one message",
            "429, 503; cut",
        ),
        Bounds(
            "anybody",
            "log folder",
            "none",
            head,
            "-",
            f"{log_folder.AT_ONCE} questions in all; for {readers.LINGER_SECONDS:.0f} s each token"
            " and request counts as a socket",
            f"{door.ANSWER_SECONDS:.0f} s to read the answer",
            f"{_size(log_folder.MOST_BYTES)} an answer; {_size(ahead.MOST_OF_A_FILE)} of a file,"
            f" {_size(ahead.MOST)} in all; a listing of {_size(folder.MOST_LISTED)}",
            "421: the controller is asked",
        ),
        Bounds(
            "anybody",
            "lists and finds of the page",
            "none",
            head,
            guesses,
            f"{processes.CALLS_OF_USER} lists of one user, {processes.CALLS} in all, the others"
            f" wait; {search.SEARCHES_OF_USER} finds of one user, {search.SEARCHES} in all;"
            f" {site.MOST_ORIGINS} addresses of pages a minute",
            f"{door.ANSWER_SECONDS:.0f} s to read each part of the answer",
            f"{processes.MOST_PROCESSES} processes; 3 x {_size(log_search.RANGE)} of a log",
            "401, 503",
        ),
    ]


def _sockets() -> list[Bounds]:
    bounds = limits.Limits()
    pace = (
        f"{bounds.commands_per_second:.0f} frames of any kind or KiB, {bounds.command_burst} at"
        f" first; {fragments.MAX_FRAGMENTS} a message"
    )
    unknown = f"{_of('max_unknown_connections'):,} in all"
    known = f"{_of('max_connections_per_user'):,} of one user, {_of('max_connections'):,} in all"
    subscribed = (
        f"{bounds.subscriptions} subscriptions of {_size(bounds.subscription_bytes)} together,"
        f" {_size(bounds.kept_per_user)} of one user with {_size(limits.SUBSCRIPTION_BYTES)} more"
        " for each"
    )
    unsent = f"{_size(2 * send_buffer.HIGH_WATER)} unsent and one message; one pong"
    silent = f"{send_buffer.NO_PROGRESS_SECONDS:.0f} s without a byte taken"
    frame = "1009 too long, 1008 too many fragments, waits for its pace"
    return [
        Bounds(
            "no token, or a refused one",
            "v0",
            f"{_size(v0.MAX_MESSAGE)}, {_size(v0.BEFORE_ADMISSION)} in all",
            "-",
            pace,
            unknown,
            f"{limits.UNKNOWN_SECONDS:.0f} s for its token",
            _size(v0.BEFORE_ADMISSION),
            f"{frame}, 1008 too much, 4502 too late, dropped for the next",
        ),
        Bounds(
            "a user's or the anonymous token",
            "v0",
            _size(v0.MAX_MESSAGE),
            "-",
            pace,
            known,
            f"{silent}; {kernel.VANISHED_SECONDS:.0f} s of no sign from its machine;"
            f" {Settings.model_fields['silent_seconds'].default:,.0f} s without a pong",
            f"{subscribed}, {v0_messages.MAX_FILTERS} filters each; {unsent}",
            f"{frame}; answered 400; 4429; cut",
        ),
        Bounds(
            "no token, or a refused one",
            "v1",
            _size(v1.MAX_MESSAGE),
            "-",
            pace,
            unknown,
            f"{v1.AUTH_SECONDS:.0f} s for its token",
            _size(inbound.SLICE_BYTES + v1.MAX_MESSAGE),
            f"{frame}, 4501 refused, 4502 too late, dropped for the next",
        ),
        Bounds(
            "a user's or the anonymous token",
            "v1",
            _size(v1.MAX_MESSAGE),
            "-",
            f"{pace}; {v1.TOKENS_AT_FIRST} tokens at first, {v1.TOKENS_PER_SECOND:.0f}/s more,"
            f" {v1.MAX_REFUSALS} refused",
            known,
            f"{silent}; {v1.SILENT_SECONDS:.1f} s without a pong",
            f"{subscribed}; {unsent}",
            f"{frame}; `too_many`; 4429, 4501, 4009; cut",
        ),
        Bounds(
            "no token, or a refused one",
            "WAMP",
            _size(v1.MAX_MESSAGE),
            "-",
            pace,
            unknown,
            f"{wamp.AUTH_SECONDS:.0f} s for its token",
            _size(inbound.SLICE_BYTES + v1.MAX_MESSAGE),
            f"{frame}, 4500 no WAMP, 4501 refused, 4502 too late, dropped for the next",
        ),
        Bounds(
            "a user's or the anonymous token",
            "WAMP",
            _size(v1.MAX_MESSAGE),
            "-",
            f"{pace}; {wamp_connection.CALLS} calls under way, those of one user as requests",
            known,
            f"{silent}; {Settings.model_fields['silent_seconds'].default:,.0f} s without a pong",
            f"{subscribed}; {unsent}; {_size(wamp_calls.MAX_BYTES)} an answer",
            f"{frame}; `too_many`, `unavailable`; 4429, 4501; cut",
        ),
    ]


def _nats() -> list[Bounds]:
    accounts = accounts_config.AccountLimits()
    line = _size(accounts.control_line)
    users = f"{CalloutSettings.model_fields['max_connections_per_user'].default:,} of one user"
    everybody = f"{accounts.user_connections:,} in all"
    chunk = f"{_size(log_chunks.MAX_MESSAGE)} with its headers"
    return [
        Bounds(
            "anybody",
            "NATS logins",
            f"{line} CONNECT",
            "-",
            "refused tokens as above",
            f"{CalloutSettings.model_fields['callout_at_once'].default:,} logins",
            f"{CalloutSettings.model_fields['callout_budget'].default:.1f} s for a decision",
            f"{identities.REFUSALS:,} refusals",
            "refused by the server",
        ),
        Bounds(
            "a user's or the anonymous token",
            "live subjects",
            "publishes nothing",
            "-",
            "-",
            f"{users}, {everybody}; {admissions.MAX_PATTERNS:,} patterns",
            "what the server does with slow consumers",
            "the server's pending bytes",
            "permissions violation, slow consumer",
        ),
        Bounds(
            "a user's or the anonymous token",
            "requests",
            f"{_size(accounts.user_payload)} with its headers",
            "-",
            "-",
            f"{answers.PER_USER} of one user, {answers.IN_ALL} in all under way",
            f"{answers.SECONDS:.0f} s for an answer",
            f"{_size(reply.MAX_BYTES)} an answer",
            "`busy`; connection ended for a larger message",
        ),
        Bounds(
            "a container's own token",
            "its own log's subjects",
            chunk,
            "names and numbers that fit",
            "-",
            f"{connections.PER_CONTAINER} connections",
            "-",
            f"{_size(log_chunks.MAX_CHUNK_BYTES)} a chunk; {hub.MOST_FILES} files for its readers",
            "refused by the stream; passed over and counted",
        ),
        Bounds(
            "a machine's key",
            "system log subjects",
            f"{_size(streams.MAX_SYSTEM_RECORD)} with its headers",
            "-",
            "-",
            everybody,
            "-",
            "the stream's bytes",
            "the connection is ended",
        ),
        Bounds(
            "an admin, a service",
            "account ARVADOS",
            _size(accounts.payload),
            "-",
            "-",
            "trusted",
            "-",
            "the streams' bytes",
            "refused by the stream",
        ),
    ]


def table() -> str:
    """The table as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(astuple(row))} |" for row in rows()]
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE} written\n")


if __name__ == "__main__":
    main()
