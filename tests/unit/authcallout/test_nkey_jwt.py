# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The callout's envelopes and JWTs: sealed, signed, and refused when anything is off."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from nacl.public import Box, PrivateKey, PublicKey

from arvados_nats.contract import accounts
from arvados_nats.errors import BadInput
from arvados_nats.service import keys
from authcallout import callout_request, callout_response, nkey_jwt
from authcallout.callout_request import CalloutRequest
from authcallout.callout_response import Admission
from authcallout.nkey_jwt import Signer
from authcallout.xkey import Envelope

SERVER = keys.generate(keys.Kind.SERVER)
ISSUER = keys.generate(keys.Kind.ACCOUNT)
USER = keys.generate(keys.Kind.USER)
CLAIMS: dict[str, Any] = {
    "aud": "nats-authorization-request",
    "nats": {
        "type": "authorization_request",
        "user_nkey": USER.public,
        "server_id": {"id": SERVER.public, "xkey": "X"},
        "client_info": {"id": 7, "host": "127.0.0.1", "kind": "Client", "type": "nats"},
        "connect_opts": {"auth_token": "tokensecret", "name": "mine"},
    },
}


def request_with(**changes: Any) -> bytes:
    nats = {**CLAIMS["nats"], **changes.pop("nats", {})}
    return Signer(SERVER).sign({**CLAIMS, "nats": nats, **changes}).encode()


def test_a_request_is_read() -> None:
    """The fields of docs/facts/nats-callout.md 1.1; its repr does not show the token."""
    request = callout_request.parse(request_with())
    assert (request.cid, request.host, request.token.secret) == (7, "127.0.0.1", "tokensecret")
    assert "tokensecret" not in repr(request)


def test_a_password_serves_as_token() -> None:
    """For tools that know only user and password; a line end of its file is no part of it."""
    options = {"connect_opts": {"user": "x", "pass": "secret\n"}}
    assert callout_request.parse(request_with(nats=options)).token.secret == "secret"


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"eyJ0",
        request_with(aud="other"),
        request_with(exp=int(time.time()) - 3600),
        request_with(nats={"type": "user"}),
        request_with(nats={"server_id": {"id": "NOTTHESIGNER"}}),
        request_with(nats={"client_info": {"id": "x"}}),
        Signer(ISSUER).sign(CLAIMS).encode(),
        request_with()[:-4] + b"AAAA",
    ],
    ids=["empty", "cut", "audience", "expired", "type", "server", "cid", "issuer", "signature"],
)
def test_bad_requests_are_dropped(token: bytes) -> None:
    """Nothing is decided about a request that a server did not sign as it is."""
    with pytest.raises(BadInput):
        callout_request.parse(token)


def test_a_changed_payload_does_not_verify() -> None:
    """Claims under another one's signature are refused."""
    head, _, signature = request_with().split(b".")
    _, payload, _ = request_with(nats={"user_nkey": "UOTHER"}).split(b".")
    with pytest.raises(BadInput):
        callout_request.parse(b".".join((head, payload, signature)))


def answer_claims(answer: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    outer = nkey_jwt.verify(answer, issued_by="A", audience=SERVER.public)
    inner = outer["nats"].get("jwt")
    if inner is None:
        return outer, {}
    return outer, nkey_jwt.verify(inner.encode(), issued_by="A", audience=None)


def parsed_request() -> CalloutRequest:
    return callout_request.parse(request_with())


def test_an_admission_writes_both_sides() -> None:
    """A side with nothing is a denial of everything: left out it would be open (1.3)."""
    admission = Admission(accounts.USERS, "name", (), ("arvados.live.a.>",))
    outer, user = answer_claims(
        callout_response.admit(parsed_request(), admission, Signer(ISSUER), until=None)
    )
    assert outer["sub"] == user["sub"] == USER.public
    assert user["aud"] == "USERS"
    assert user["nats"]["pub"] == {"deny": [">"]}
    assert user["nats"]["sub"] == {"allow": ["arvados.live.a.>"]}
    assert "nbf" not in user
    assert user["exp"] > time.time() + 4 * 3600


NOTHING, SOMETHING = {"deny": [">"]}, {"allow": ["a"]}


@pytest.mark.parametrize("subjects", [(), ("a..b",)])
def test_no_side_is_ever_left_open(subjects: tuple[str, ...]) -> None:
    """The server forgets what the account says of a side that is left out (1.3)."""
    for publish, subscribe, expected in (
        (subjects, ("a",), (NOTHING, SOMETHING)),
        (("a",), subjects, (SOMETHING, NOTHING)),
        (subjects, subjects, (NOTHING, NOTHING)),
    ):
        admission = Admission(accounts.USERS, "name", publish, subscribe)
        _, user = answer_claims(
            callout_response.admit(parsed_request(), admission, Signer(ISSUER), until=None)
        )
        assert (user["nats"]["pub"], user["nats"]["sub"]) == expected


def test_a_bad_subject_locks_nobody_out() -> None:
    """The server refuses a login for one malformed entry, so such an entry is left out."""
    bad = ("", "a..b", ".a", "a.", "a b", "a.>.b", "a\n", "good.*.>")
    admission = Admission(accounts.USERS, "name", bad, bad)
    _, user = answer_claims(
        callout_response.admit(parsed_request(), admission, Signer(ISSUER), until=None)
    )
    assert user["nats"]["sub"] == user["nats"]["pub"] == {"allow": ["good.*.>"]}


def test_a_token_that_expires_bounds_the_login() -> None:
    """`exp` is the token's own end where that is sooner."""
    soon = time.time() + 100
    admission = Admission(accounts.USERS, "name", (), ())
    _, user = answer_claims(
        callout_response.admit(parsed_request(), admission, Signer(ISSUER), until=soon)
    )
    assert user["exp"] == int(soon)


def test_no_other_account_is_possible() -> None:
    """The server places a user wherever `aud` says: only two accounts may be said."""
    with pytest.raises(ValueError, match="SYS"):
        Admission(accounts.SYS, "name", (), ())


def test_a_refusal_says_why() -> None:
    """The reason is for the server's log; there is no user JWT."""
    outer, user = answer_claims(callout_response.refuse(parsed_request(), "why", Signer(ISSUER)))
    assert outer["nats"]["error"] == "why"
    assert not user


def test_envelopes_open_for_their_receiver_only() -> None:
    """What a server seals to our key opens with it; plain, cut and foreign requests do not."""
    ours, server = keys.generate(keys.Kind.CURVE), keys.generate(keys.Kind.CURVE)
    box = Box(PrivateKey(server.raw), PublicKey(keys.decode_public(ours.public)[1]))
    sealed = b"xkv1" + bytes(box.encrypt(b"hello"))
    assert Envelope(ours).open(sealed, server.public) == b"hello"
    for wrong in (b"hello", sealed[:-1], b"xkv1"):
        with pytest.raises(BadInput):
            Envelope(ours).open(wrong, server.public)
    with pytest.raises(BadInput):
        Envelope(keys.generate(keys.Kind.CURVE)).open(sealed, server.public)
    with pytest.raises(BadInput):
        Envelope(ours).open(sealed, USER.public)


def test_answers_are_sealed_to_the_server() -> None:
    """The server opens what we sealed."""
    ours, server = keys.generate(keys.Kind.CURVE), keys.generate(keys.Kind.CURVE)
    answer = Envelope(ours).seal(b"answer", server.public)
    box = Box(PrivateKey(server.raw), PublicKey(keys.decode_public(ours.public)[1]))
    assert box.decrypt(answer[4:]) == b"answer"


def test_claims_of_other_forms_are_refused() -> None:
    """A JWT whose payload is no object is bad input, not a crash."""
    signer = Signer(SERVER)
    payloads: list[Any] = [[], "x", 1, None]
    for payload in payloads:
        token = nkey_jwt._jws.encode(
            msgspec.json.encode(payload), signer._key, "ed25519-nkey", headers={"typ": "JWT"}
        )
        with pytest.raises(BadInput):
            callout_request.parse(token.encode())
