# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How grants and tokens are asked for over NATS, inside the account ARVADOS.

Pure. `arvados.grants.get` takes a `GrantsQuestion` and gives a `GrantsAnswer`, compressed and cut
into parts that fit a message; `arvados.tokens.get` takes a list of token uuids and gives a
`TokensAnswer`. A question names the version that is held, so an answer carries what differs only.
Versions are digests of content and agree between replicas; generations order answers in time.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from sys import intern
from typing import TypeVar

import msgspec

from arvados_nats.errors import MALFORMED, BadInput, Unavailable
from arvados_nats.permissions.grants import ClusterState, Grants

T = TypeVar("T")

PART = "Arvados-Part"
"""Header of each part of an answer: `<number>/<of how many>`, numbers from 1."""
FAILED = "Arvados-Unavailable"
"""Header of an empty answer: the publisher cannot say now, and why."""

PART_BYTES = 512 * 1024
_MAX_ANSWER_BYTES = 256 * 1024 * 1024
_NO_RESPONDERS = "503"


class GrantsQuestion(msgspec.Struct, frozen=True):
    """Who is asked about: user uuid to the version held, or an empty text.

    With `at`, only what they have at these groups is wanted, none of which may be a role: all else
    is as the asker holds it, since nobody stands in for them.
    """

    users: dict[str, str]
    at: tuple[str, ...] = ()


class UserGrants(msgspec.Struct, frozen=True):
    """The grants of one user. `targets` lists uuids by their bits (see `grants`).

    `user_uuid` is who was asked about, `reads_as` whose grants these are: another user where the
    one asked about was merged away.
    """

    user_uuid: str
    reads_as: str
    is_admin: bool
    is_active: bool
    targets: dict[int, list[str]]
    version: str = ""


class GrantsAnswer(msgspec.Struct, frozen=True):
    """Of one database snapshot: `generation` orders snapshots, `now` is its time by that clock.

    `same` are users whose version is the one held; `role_groups_visible` is
    `ClusterState.role_groups_visible`, and part of everybody's version. With `at` it tells of these
    groups alone, and who is not among the `users` has nothing there.
    """

    generation: int
    now: float
    role_groups_visible: bool | None
    users: list[UserGrants]
    same: list[str]
    at: tuple[str, ...] = ()


class GrantsAnswered(msgspec.Struct, frozen=True):
    """Told by a replica after each answer, so that whoever watches knows who relies on what.

    `users` maps each user asked about to the version that the asker now holds.
    """

    generation: int
    users: dict[str, str]


class GrantsChanged(msgspec.Struct, frozen=True):
    """Told when what a user may read has changed; ask for the grants that hold now.

    `lost` and `gained` are a summary for logs, cut to `MAX_LISTED`; `cause` says what was noticed.
    Whoever has `version` already need not ask.
    """

    user_uuid: str
    generation: int
    cause: str
    narrows: bool
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()
    version: str = ""


MAX_LISTED = 100


class GrantsHidden(msgspec.Struct, frozen=True):
    """Told when the trash hides these, to which links lead; nobody's grants are different."""

    uuids: tuple[str, ...]


class TokenState(msgspec.Struct, frozen=True):
    """A live token. In seconds since 1970: when it ends, and from when on Arvados' answer about
    another cluster's token is to be asked for again."""

    token_uuid: str
    user_uuid: str
    scopes: tuple[str, ...]
    expires_at: float | None = None
    refreshes_at: float | None = None


class TokensAnswer(msgspec.Struct, frozen=True):
    """The live ones among the tokens asked about, by the database's clock `now`."""

    now: float
    tokens: list[TokenState]


TOKEN_STALE = "stale"


class TokenGone(msgspec.Struct, frozen=True):
    """Why a token is told gone: `expired`, `deleted`, or `changed` (other user or scopes); `stale`:
    it lives if Arvados, asked now, says so."""

    token_uuid: str
    reason: str


def user_grants(asked_about: str, grants: Grants, version: str) -> UserGrants:
    """The form in which grants travel; `version` is theirs."""
    targets: dict[int, list[str]] = {}
    for uuid, bits in grants.targets.items():
        targets.setdefault(bits, []).append(uuid)
    return UserGrants(
        asked_about,
        grants.user_uuid,
        grants.is_admin,
        grants.is_active,
        targets,
        version,
    )


def grants_version(grants: Grants) -> str:
    """Digest of what one user may read."""
    visible = grants.cluster.role_groups_visible
    return _digest(
        [
            f"{grants.user_uuid} {grants.is_admin} {grants.is_active} {visible}",
            *(f"{uuid} {bits}" for uuid, bits in sorted(grants.targets.items())),
        ]
    )


def received(found: UserGrants, cluster: ClusterState, generation: int) -> Grants:
    """Grants out of an answer. Uuids are interned: readers of the same projects share them."""
    return Grants(
        found.reads_as,
        found.is_admin,
        found.is_active,
        {intern(uuid): bits for bits, uuids in found.targets.items() for uuid in uuids},
        cluster,
        generation,
    )


_encoder = msgspec.json.Encoder()
_answers = msgspec.json.Decoder(GrantsAnswer)
_questions = msgspec.json.Decoder(GrantsQuestion)
_answered = msgspec.json.Decoder(GrantsAnswered)
_hidden = msgspec.json.Decoder(GrantsHidden)


def encode(value: msgspec.Struct) -> bytes:
    """JSON of any of the structs here."""
    return _encoder.encode(value)


def parts(answer: GrantsAnswer) -> list[tuple[dict[str, str], bytes]]:
    """Header and payload of each message of an answer."""
    packed = zlib.compress(_encoder.encode(answer), 1)
    pieces = [packed[at : at + PART_BYTES] for at in range(0, len(packed), PART_BYTES)]
    return [
        ({PART: f"{number}/{len(pieces)}"}, piece) for number, piece in enumerate(pieces, start=1)
    ]


def question(payload: bytes) -> GrantsQuestion:
    """The question in a payload; BadInput if it is none."""
    try:
        return _questions.decode(payload)
    except MALFORMED as error:
        raise BadInput(f"not a question about grants: {error}") from error


class _Told(msgspec.Struct):
    generation: int
    version: str = ""


_told = msgspec.json.Decoder(_Told)


def told(payload: bytes) -> tuple[int, str]:
    """From when on a change holds, and the version that holds then; BadInput if it is no change."""
    try:
        found = _told.decode(payload)
    except MALFORMED as error:
        raise BadInput(f"not a change of grants: {error}") from error
    return found.generation, found.version


def answered(payload: bytes) -> GrantsAnswered:
    """What a replica tells of an answer it gave; BadInput if it is something else."""
    try:
        return _answered.decode(payload)
    except MALFORMED as error:
        raise BadInput(f"not a note about an answer: {error}") from error


def hidden(payload: bytes) -> tuple[str, ...]:
    """What the trash hides; BadInput if it is something else."""
    try:
        return _hidden.decode(payload).uuids
    except MALFORMED as error:
        raise BadInput(f"not what the trash hides: {error}") from error


class Assembly:
    """Puts the parts of one answer together as they come."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def add(self, headers: Mapping[str, str], payload: bytes) -> GrantsAnswer | None:
        """The answer once it is complete. Unavailable if nobody can give one."""
        check_answer(headers)
        number, _, count = headers.get(PART, "").partition("/")
        if number != str(len(self._pieces) + 1):
            raise BadInput("a part of an answer about grants is missing")
        self._pieces.append(payload)
        return _unpack(b"".join(self._pieces)) if number == count else None


def check_answer(headers: Mapping[str, str]) -> None:
    """Unavailable if a reply says that nobody answers, or that the publisher cannot."""
    if headers.get("Status") == _NO_RESPONDERS:
        raise Unavailable("no permission publisher answers")
    if reason := headers.get(FAILED):
        raise Unavailable(f"the permission publisher cannot say: {reason}")


def answer(
    headers: Mapping[str, str], payload: bytes, decoder: msgspec.json.Decoder[T], what: str
) -> T:
    """A publisher's answer in one message; Unavailable if it says that nobody can tell."""
    check_answer(headers)
    try:
        return decoder.decode(payload)
    except MALFORMED as error:
        raise BadInput(f"not an answer about {what}: {error}") from error


def _unpack(packed: bytes) -> GrantsAnswer:
    try:
        unpacker = zlib.decompressobj()
        return _answers.decode(unpacker.decompress(packed, _MAX_ANSWER_BYTES))
    except (*MALFORMED, zlib.error) as error:
        raise BadInput(f"not an answer about grants: {error}") from error


def _digest(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=12).hexdigest()
