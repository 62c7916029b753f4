# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Arvados tokens, in a type that cannot be logged by accident.

Pure. Forms (docs/facts/arvados.md 2): v1 is a bare secret; v2 is `v2/<uuid>/<secret>`, with a
fourth part `/<container uuid>` for a container's own token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field

from arvados_nats.contract import subjects
from arvados_nats.errors import BadInput

_SALTED = re.compile(r"[0-9a-f]{40}")
_MAX_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `repr` and `str` show at most its uuid. Compare and cache by `digest`."""

    secret: str = field(repr=False)

    def __str__(self) -> str:
        return self.uuid or "***"

    def __repr__(self) -> str:
        return f"Token({self})"

    @property
    def usable(self) -> bool:
        """Whether it can stand in an Authorization header at all."""
        text = self.secret
        return (
            0 < len(text) <= _MAX_LENGTH
            and text.isascii()
            and text.isprintable()
            and " " not in text
        )

    @property
    def uuid(self) -> str | None:
        """The uuid that a v2 token names; its owner proves nothing by it."""
        parts = self.secret.split("/")
        return (
            parts[1]
            if len(parts) >= 3 and parts[0] == "v2" and subjects.is_uuid(parts[1])
            else None
        )

    @property
    def container_uuid(self) -> str | None:
        """The container that a container's own token names."""
        parts = self.secret.split("/")
        kind = subjects.kind_of(parts[3]) if self.uuid and len(parts) == 4 else None
        return parts[3] if kind and kind.name == "container" else None

    def salted(self, cluster: str) -> Token:
        """What another cluster may see of it, which is good there alone (docs/facts/arvados.md 2);
        a cluster's own token as it is. BadInput where nobody can tell whose it is."""
        uuid, parts = self.uuid, self.secret.split("/")
        if uuid is None:
            raise BadInput(f"a token that names no cluster is of no use at {cluster}")
        if uuid.startswith(cluster):
            return self
        if _SALTED.fullmatch(parts[2]):
            raise BadInput(f"this token is for one cluster alone, and not for {cluster}")
        secret = hmac.new(parts[2].encode(), cluster.encode(), hashlib.sha1).hexdigest()
        return Token(f"v2/{uuid}/{secret}")

    @property
    def digest(self) -> bytes:
        """What stands for the token in caches and indexes."""
        return hashlib.blake2b(self.secret.encode(), digest_size=16).digest()


NOBODY = Token("v2/zzzzz-gj3su-" + "0" * 15 + "/" + "0" * 40)
"""No cluster has this token."""
