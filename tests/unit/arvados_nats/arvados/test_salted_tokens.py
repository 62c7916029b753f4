# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What another cluster is shown of a token (docs/facts/arvados.md 2)."""

from __future__ import annotations

import pytest

from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import BadInput

UUID = "zzzzz-gj3su-077z32aux8dg2s1"
SECRET = "3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru30k1jqdmi"


def test_the_secret_itself_stays_at_home() -> None:
    """The digest is that of Arvados' own SaltToken: keyed with the secret, of the cluster."""
    salted = Token(f"v2/{UUID}/{SECRET}").salted("zyyyy")
    assert salted.secret == f"v2/{UUID}/9e23d1e3708642981dd249b9914ea31b2fdb1177"
    assert salted.secret != Token(f"v2/{UUID}/{SECRET}").salted("zxxxx").secret


def test_its_own_cluster_gets_it_as_it_is() -> None:
    token = Token(f"v2/{UUID}/{SECRET}")
    assert token.salted("zzzzz") is token


@pytest.mark.parametrize("token", [SECRET, f"v2/{UUID}/" + "0a" * 20], ids=["bare", "salted"])
def test_what_cannot_be_salted(token: str) -> None:
    """Nor can it be told whose it is, or it was meant for another cluster."""
    with pytest.raises(BadInput) as refused:
        Token(token).salted("zyyyy")
    assert "0a0a" not in str(refused.value) and SECRET not in str(refused.value)
