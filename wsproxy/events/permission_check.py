# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Ask Arvados itself whether a reader may see an object, with the reader's own token.

The last resort, where the rule cannot tell. One question for each reader and object, however many
connections; the answer is kept briefly. 401, 403 and 404 are a no; anything else that is no answer
is asked again and never becomes one (docs/facts/arvados-demand.md A10): in the end the event is
left out and counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Hashable

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import Unavailable
from arvados_nats.single_flight import SingleFlight
from wsproxy import metrics
from wsproxy.events.record_check import RecordCheck

logger = logging.getLogger(__name__)

_KEPT_SECONDS = 10.0
_KEPT_ANSWERS = 2000
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the attempts at one question."""


class PermissionCheck:
    """Questions of all readers."""

    def __init__(self, check: RecordCheck) -> None:
        self._check = check
        self._tokens: dict[Hashable, OrderedDict[bytes, Token]] = defaultdict(OrderedDict)
        self._answers: dict[Hashable, OrderedDict[str, tuple[bool, float]]] = {}
        self._asking = SingleFlight[tuple[Hashable, str], bool]("permission check")

    def add_token(self, principal: Hashable, token: Token) -> None:
        """A token by which the reader's questions may be asked."""
        self._tokens[principal][token.digest] = token

    def drop_token(self, principal: Hashable, token: Token) -> bool:
        """The token is not used any more; whether the reader has others."""
        self._tokens[principal].pop(token.digest, None)
        if self._tokens[principal]:
            return True
        del self._tokens[principal]
        self.forget(principal)
        return False

    def forget(self, principal: Hashable) -> None:
        """Answers given to the reader so far are not used any more."""
        self._answers.pop(principal, None)
        self._asking.forget(lambda question: question[0] == principal)

    def known(self, principal: Hashable, uuid: str) -> bool | None:
        """What Arvados said lately; None if it was not asked."""
        answers = self._answers.get(principal)
        if answers is None or uuid not in answers:
            return None
        readable, until = answers[uuid]
        return readable if until > time.monotonic() else None

    async def ask(self, principal: Hashable, uuid: str) -> bool:
        """Whether GET of the object with include_trash answers 200; no when in doubt."""
        known = self.known(principal, uuid)
        if known is not None:
            return known
        if principal not in self._tokens:
            return False
        answers = self._answers.setdefault(principal, OrderedDict())
        try:
            found = await self._asking.ask((principal, uuid), lambda: self._ask(principal, uuid))
        except Unavailable:
            return False
        if self._answers.get(principal) is answers:  # else the answer may be older than a change
            answers[uuid] = (found, time.monotonic() + _KEPT_SECONDS)
            answers.move_to_end(uuid)
            while len(answers) > _KEPT_ANSWERS:
                answers.popitem(last=False)
        return found

    async def _ask(self, principal: Hashable, uuid: str) -> bool:
        for pause in (*_PAUSES, None):
            token = next(reversed(self._tokens.get(principal, {}).values()), None)
            if token is None:
                return False
            try:
                return await self._check.readable(token, uuid, include_trash=True)
            except Unavailable as error:
                if pause is None:
                    metrics.undecided.inc()
                    logger.warning(
                        "event left out: Arvados does not say who may read it",
                        extra={"action": "permission.undecided", "error": str(error)},
                    )
                    raise
                await asyncio.sleep(pause)
        return False
