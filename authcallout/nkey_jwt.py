# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""JWTs as NATS signs them: algorithm `ed25519-nkey`, issuers that are nkeys.

Pure. PyJWT does the work once an algorithm for nkeys is registered with it (docs/facts/nats.md).
"""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any, Literal

import jwt
import msgspec
from jwt.algorithms import Algorithm
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from arvados_nats.errors import MALFORMED, BadInput
from arvados_nats.service.keys import Seed, decode_public

_ALGORITHM = "ed25519-nkey"
_CLOCK_SKEW = 60.0


class _Ed25519Nkey(Algorithm):
    """Keys are a `SigningKey` to sign, and the 32 public bytes to check."""

    def prepare_key(self, key: Any) -> Any:
        return key

    def sign(self, msg: bytes, key: SigningKey) -> bytes:
        return key.sign(msg).signature

    def verify(self, msg: bytes, key: bytes, sig: bytes) -> bool:
        try:
            VerifyKey(key).verify(msg, sig)
        except (BadSignatureError, ValueError):
            return False
        return True

    @staticmethod
    def to_jwk(key_obj: Any, as_dict: bool = False) -> Any:
        raise NotImplementedError("nkeys have no JWK form")

    @staticmethod
    def from_jwk(jwk: Any) -> Any:
        raise NotImplementedError("nkeys have no JWK form")


_jws = jwt.PyJWS()
_jws.register_algorithm(_ALGORITHM, _Ed25519Nkey())


class Signer:
    """Signs claims as the account key `issuer`."""

    def __init__(self, issuer: Seed) -> None:
        self.public = issuer.public
        self._key: Any = SigningKey(issuer.raw)

    def sign(self, claims: dict[str, Any]) -> str:
        """The JWT of these claims; `iss`, `iat` and `jti` are added."""
        now = int(time.time())  # noqa: TID251  (nats-server compares with its own clock)
        full = {**claims, "iss": self.public, "iat": now}
        body = msgspec.json.encode(full)
        full["jti"] = base64.b32encode(hashlib.sha256(body).digest()).decode().rstrip("=")
        return _jws.encode(msgspec.json.encode(full), self._key, _ALGORITHM, headers={"typ": "JWT"})


def verify(token: bytes, *, issued_by: Literal["N", "A"], audience: str | None) -> dict[str, Any]:
    """The claims of a JWT that the nkey in its own `iss` signed; BadInput if anything is off.

    The issuer's kind is told by the first letter of its key: `N` a server, `A` an account. The
    caller says whom it trusts: a callout request comes over the callout account, where only servers
    and we may publish. `exp` is judged with a minute's leeway, since it is the server's clock.
    """
    try:
        claims: dict[str, Any] = msgspec.json.decode(
            _jws.decode(token, options={"verify_signature": False})
        )
        issuer = str(claims["iss"])
        if not issuer.startswith(issued_by):
            raise BadInput("the JWT's issuer is of another kind")
        _jws.decode(token, decode_public(issuer)[1], algorithms=[_ALGORITHM])
    except (*MALFORMED, jwt.PyJWTError, KeyError, TypeError) as error:
        raise BadInput(f"not a JWT of this server: {error}") from error
    if audience is not None and claims.get("aud") != audience:
        raise BadInput("the JWT is for another audience")
    expires = claims.get("exp", 0)
    now = time.time()  # noqa: TID251  (nats-server has signed by its own clock)
    if not isinstance(expires, int | float):
        raise BadInput("the JWT does not say when it expires")
    if expires and expires + _CLOCK_SKEW < now:
        raise BadInput("the JWT has expired; are the clocks of the machines in step?")
    return claims
