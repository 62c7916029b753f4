# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The read rule for the holder of one token at one moment, as `GrantsCache.judge` hands it out.

Pure. Trash and expiry times are written and compared by the database's clock. Whoever judges takes
the moment from here, so that no second clock decides the same rule (ruff bans `time.time` and
`permissions.decide` elsewhere).
"""

from __future__ import annotations

import msgspec

from arvados_nats.permissions import share_points
from arvados_nats.permissions.grants import Grants
from arvados_nats.permissions.object_facts import ObjectFacts
from arvados_nats.permissions.rule import Decision, Identity, decide  # noqa: TID251  (the one caller)


class Judge(msgspec.Struct, frozen=True, gc=False):
    """Who asks, what they may read, and when, in seconds since 1970 by the database's clock."""

    identity: Identity
    grants: Grants
    now: float

    def decide(self, facts: ObjectFacts, *, include_trash: bool = False) -> Decision:
        """What the rule says of an object; `ASK` while it is not known where the object is."""
        if not share_points.is_placed(facts):
            return Decision.ASK
        grants = share_points.about(self.grants, facts)
        return decide(self.identity, grants, facts, self.now, include_trash)

    def allows(self, facts: ObjectFacts) -> bool:
        """Whether the object may be read for sure, as states and logs are: trash is hidden."""
        return self.decide(facts) is Decision.YES

    def heard_at(self, facts: ObjectFacts, uuid: str, owner: str) -> str:
        """The share point below which changes of an object, or of a request, are told to them."""
        return share_points.heard_at(self.grants, facts, uuid, owner)

    def requests_shown(self, facts: ObjectFacts) -> list[tuple[str, str]]:
        """(owner, request) of the requests that show a container and that may be read."""
        return [
            (owner, uuid)
            for uuid, owner in facts.requests or ()
            if self.allows(ObjectFacts("container_request", uuid, owner, places=facts.places))
        ]
