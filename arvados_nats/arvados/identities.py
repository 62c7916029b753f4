# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who holds a token: asked of Arvados once, then remembered for a bounded time.

`api_client_authorizations/current` answers with the token's uuid, user, scopes and expiry whatever
the scopes (docs/facts/arvados.md 2); what that user may read is another question (`grants_cache`).
All callers of one token share one question. While Arvados is down or slow an answer may be used
past its time, up to a bound, unless the token was reported gone; an unknown token is refused (fail
closed).

Another cluster's token ends when that cluster says so. What Arvados tells of it is true for five
minutes, after which it asks there again; up to 3.0 that time stands in `expires_at`. So such a
token has no end here, and is asked about again when the permission publisher calls it stale.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from arvados_nats.arvados.client import Arvados, NotFound, OutOfScope
from arvados_nats.arvados.refusal_limit import Allowance, RefusalLimit
from arvados_nats.arvados.tokens import Token
from arvados_nats.arvados.turns import Crowded, Turns
from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable, said
from arvados_nats.peers import network
from arvados_nats.permission_client.own_tokens import OwnToken, OwnTokens
from arvados_nats.permissions.object_facts import timestamp
from arvados_nats.permissions.rule import MAX_SCOPES, Identity
from arvados_nats.single_flight import SingleFlight

logger = logging.getLogger(__name__)

OF_ADDRESS = Allowance(burst=500, per_second=20)
"""Tokens of one address that Arvados may refuse before its questions have few turns."""
TURNS = 8
"""Questions under way for all addresses beyond their allowance, and as many that wait: who is sent
away comes again, and meanwhile holds no place among logins that can be decided."""
TURN_SECONDS = 0.4
"""For each of them, so that all together are at most twenty a second."""
OF_TOKEN = Allowance(burst=5, per_second=0.2)
"""Wrong secrets with the uuid of one token, before those who bring it wait like all others."""
LOOKS = 8
"""Looks for their tokens in the database, which are quick."""
REFUSALS = 10_000
"""Refusals that are remembered: they push out no answer about a good token."""


_PATIENCE = 0.3
"""Seconds that Arvados has where there is an answer to be used: whoever logs in gives up soon."""

_AGAIN_AFTER = (1.0, 4.0, 15.0)
"""Seconds between questions about a token whose answer has run out, while there is none."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long answers are used, in seconds. `stale` counts from when an answer was given.

    `confirmed` is more than the minute in which the permission publisher is asked once more.
    """

    known: float = 60.0
    confirmed: float = 90.0
    refused: float = 10.0
    stale: float = 300.0


class TooManyScopes(Refused):
    """The token has more scopes than are looked at here."""


@dataclass(slots=True)
class _Answer:
    outcome: Identity | str
    """Who it is, or why there is nobody: no error, which would keep all that its raising saw."""
    at: float = field(default_factory=time.monotonic)
    confirmed: bool = False

    @property
    def age(self) -> float:
        return time.monotonic() - self.at


class Identities:
    """Answers `of(token)`; at most `calls` questions are under way at Arvados at once."""

    def __init__(
        self,
        arvados: Arvados,
        own: OwnTokens,
        *,
        lifetimes: Lifetimes | None = None,
        calls: int = 16,
        remembered: int = 50_000,
        of_address: Allowance = OF_ADDRESS,
    ) -> None:
        self._arvados = arvados
        self.own = own
        self._lifetimes = lifetimes or Lifetimes()
        self._calls = Turns(calls)
        self._remembered = remembered
        self._limit = RefusalLimit(of_address)
        self._turns = Turns(TURNS, TURNS, TURN_SECONDS)
        self._looks = Turns(LOOKS)
        self._guesses = RefusalLimit(OF_TOKEN)
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._digests: dict[str, set[bytes]] = {}
        """Of the tokens in `_answers`, by uuid."""
        self._refusals: OrderedDict[bytes, _Answer] = OrderedDict()
        self._asking = SingleFlight[bytes, Identity]("identity")
        self._generation = 0

    async def of(self, token: Token, address: str | None = None) -> Identity:
        """Who holds the token. Refused if Arvados says no, Unavailable if it cannot be asked.

        `address` is whose allowance a question about a token that is not known yet counts for.
        """
        answer = self._refusals.get(token.digest) or self._answers.get(token.digest)
        if answer is not None and self._fresh(answer):
            return _outcome(answer)
        known = self._usable(token)
        try:
            async with asyncio.timeout(_PATIENCE if known else None):
                return await self._ask_once(
                    token, None if token.digest in self._answers else address
                )
        except (Unavailable, TimeoutError) as error:
            # It may have been reported gone meanwhile.
            if (answer := self._usable(token)) is None:
                kind = Crowded if isinstance(error, Crowded) else Unavailable
                raise kind(said(error)) from error
            return _outcome(answer)

    def _usable(self, token: Token) -> _Answer | None:
        """What may be used while there is no new answer."""
        answer = self._answers.get(token.digest)
        return answer if answer and answer.age <= self._lifetimes.stale else None

    async def gone(self, token: Token, before: Identity) -> str | None:
        """Why a token is gone, as Arvados says when it is asked anew; None while it lives, or while
        there is no answer: the permission publisher bounds how long that may be."""
        for pause in _AGAIN_AFTER:
            try:
                now = await self._ask_once(token)
            except Refused:
                return "expired"
            except ArvadosNatsError as error:
                logger.warning(
                    "whether a token still lives is not known",
                    extra={
                        "action": "identities.stale",
                        "token_uuid": before.token_uuid,
                        "error": str(error),
                    },
                )
                await asyncio.sleep(pause)
            else:
                same = (now.user_uuid, now.scopes) == (before.user_uuid, before.scopes)
                return None if same else "changed"
        return None

    def usable(self) -> dict[str, Identity]:
        """Who may come in by what is remembered, by the uuid of their token, whose end must be
        heard."""
        found: dict[str, Identity] = {}
        for answer in reversed(self._answers.values()):
            if answer.age > self._lifetimes.stale:
                break
            identity = _outcome(answer)
            found[identity.token_uuid] = identity
        return found

    def confirm(self, token_uuid: str) -> None:
        """The database says that a token in use lives on as it is: Arvados need not be asked when
        its holder comes back, with all others after a restart of NATS."""
        for digest in self._digests.get(token_uuid, ()):
            self._answers[digest] = _Answer(self._answers[digest].outcome, confirmed=True)
            self._answers.move_to_end(digest)

    def forget(self, token_uuid: str) -> None:
        """Drop what is known of a token, also what is being asked right now."""
        self._generation += 1
        for digest in tuple(self._digests.get(token_uuid, ())):
            self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        answer = self._answers.pop(digest, None)
        if answer is None:
            return
        token_uuid = _outcome(answer).token_uuid
        self._digests[token_uuid].discard(digest)
        if not self._digests[token_uuid]:
            del self._digests[token_uuid]

    def _fresh(self, answer: _Answer) -> bool:
        if isinstance(answer.outcome, str):
            return answer.age < self._lifetimes.refused
        expires = answer.outcome.expires_at
        now = time.time()  # noqa: TID251  (spares a question; the rule looks at the end itself)
        lifetime = self._lifetimes.confirmed if answer.confirmed else self._lifetimes.known
        return answer.age < lifetime and (expires is None or expires > now)

    async def _ask_once(self, token: Token, address: str | None = None) -> Identity:
        return await self._asking.ask(token.digest, lambda: self._ask_in_turn(token, address))

    async def _ask_in_turn(self, token: Token, address: str | None) -> Identity:
        """Without an address for a token whose answer is old."""
        key = address and network(address)
        crowded = key is not None and self._limit.exhausted(key)
        try:
            # Arvados answers some ten questions a second for each of its processes, and each must
            # not be held up by the many who make tokens up.
            async with self._looks.taken() if crowded else contextlib.nullcontext():
                here = await self._is_here(token)
            if here is False:
                raise self._refused(token, "no such token")
            first = key is None or bool(here and not self._guesses.exhausted(token.uuid))
            async with self._turns.taken() if crowded and not first else contextlib.nullcontext():
                return await self._ask(token, first=first)
        except Refused:
            if key is not None:
                self._limit.count(key)
                if here:
                    self._guesses.count(token.uuid)
            raise

    async def _ask(self, token: Token, *, first: bool) -> Identity:
        generation = self._generation
        try:
            async with self._calls.taken(first=first):
                record = await self._arvados.current_token(token)
                container = await self._own_container(token)
            identity = await self._identity(record, container)
        except (Refused, BadInput) as error:
            raise self._refused(token, error) from error
        # A token that was reported gone while we asked may not enter by the older answer.
        if generation == self._generation:
            self._remember(token, identity)
        return identity

    def _refused(self, token: Token, why: object) -> Refused:
        """The refusal, which is remembered."""
        refusal = Refused(
            "Arvados older than 2.7 tells nothing about a scoped token"
            if isinstance(why, OutOfScope)
            else str(why)
            if isinstance(why, TooManyScopes)
            else f"Arvados does not know the token, or it has expired ({why})"
        )
        self._remember(token, str(refusal))
        return refusal

    async def _is_here(self, token: Token) -> bool | None:
        """Whether a token here has the uuid that this one names; None where nobody can say."""
        if token.uuid is None:
            return None
        try:
            return await self.own.has(token.uuid)
        except ArvadosNatsError:
            return None

    async def _end(self, token_uuid: str, expires_at: object) -> float | None:
        """When the token ends by itself; only that of one with an end needs to be looked at."""
        if not isinstance(expires_at, str):
            return None
        try:
            foreign = await self.own.is_foreign(token_uuid)
        except ArvadosNatsError:
            foreign = False  # then it ends when its row says
        return None if foreign else timestamp(expires_at)

    async def _own_container(self, token: Token) -> str | None:
        """The container that the token names, if it is that one's own.

        Arvados takes any user's token with the uuid of a container it does not have.
        """
        named = token.container_uuid
        if named is None:
            return None
        try:
            found = await self._arvados.current_container(token)
        except NotFound:
            return None
        return named if found.get("uuid") == named else None

    async def _identity(self, record: Mapping[str, object], container_uuid: str | None) -> Identity:
        token_uuid, user_uuid, scopes = (record.get(k) for k in ("uuid", "owner_uuid", "scopes"))
        if not (isinstance(token_uuid, str) and subjects.is_uuid(token_uuid)):
            raise Unavailable("Arvados tells no uuid of the token")
        if not (isinstance(user_uuid, str) and subjects.is_uuid(user_uuid)):
            raise Unavailable("Arvados tells no owner of the token")
        named = tuple(map(str, scopes)) if isinstance(scopes, list) else ()
        if sum(map(len, named)) + len(named) > MAX_SCOPES:
            raise TooManyScopes
        return Identity(
            token_uuid=token_uuid,
            user_uuid=user_uuid,
            is_root=await self.own.of(token_uuid, user_uuid) is OwnToken.ROOT,
            scopes=named,
            expires_at=await self._end(token_uuid, record.get("expires_at")),
            container_uuid=container_uuid,
        )

    def _remember(self, token: Token, outcome: Identity | str) -> None:
        self._drop(token.digest)
        self._refusals.pop(token.digest, None)
        if isinstance(outcome, Identity):
            self._answers[token.digest] = _Answer(outcome)
            self._digests.setdefault(outcome.token_uuid, set()).add(token.digest)
            while len(self._answers) > self._remembered:
                self._drop(next(iter(self._answers)))
        else:
            self._refusals[token.digest] = _Answer(outcome)
            while len(self._refusals) > REFUSALS:
                self._refusals.popitem(last=False)


def _outcome(answer: _Answer) -> Identity:
    if isinstance(answer.outcome, Identity):
        return answer.outcome
    raise Refused(answer.outcome)
