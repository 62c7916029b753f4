# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Who gets what on NATS: the table of `authcallout.admissions`, row by row."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from arvados_nats.contract import accounts
from arvados_nats.errors import Refused
from arvados_nats.permissions.grants import DIRECT, OWNED, Grants
from arvados_nats.permissions.request_info import holder
from arvados_nats.permissions.rule import Identity
from authcallout.admissions import CONTAINER, FIXED, admission, fingerprint

USER = "zzzzz-tpzed-000000000000001"
TOKEN = "zzzzz-gj3su-000000000000001"
PROJECT = "zzzzz-j7d0g-000000000000001"
RUNNING = "zzzzz-dz642-000000000000001"
IDENTITY = Identity(TOKEN, USER)
GRANTS = Grants(USER, is_active=True, targets={USER: DIRECT | OWNED, PROJECT: DIRECT | OWNED})


def changed(identity: Identity, **changes: object) -> Identity:
    return msgspec.structs.replace(identity, **changes)


def test_an_ordinary_token() -> None:
    """To listen: the live patterns of its grants and nothing else. It publishes nothing at all."""
    found = admission(IDENTITY, GRANTS)
    assert found.account == accounts.USERS
    assert set(found.subscribe) == {f"arvados.live.{USER}.>", f"arvados.live.{PROJECT}.>"}
    assert found.publish == ()


@pytest.mark.parametrize("admin", [False, True])
def test_who_asks(admin: bool) -> None:
    """The API and the inbox, whatever may be read: never a live pattern, `$JS` or `_INBOX.>`."""
    grants = msgspec.structs.replace(GRANTS, is_admin=admin)
    found = admission(IDENTITY, grants, asks=True)
    assert found.account == accounts.REQUESTS
    assert set(found.subscribe) == {f"_INBOX_{USER}.>", f"_INBOX_{TOKEN}.>"}
    assert set(found.publish) == {"arvados.api.>", "$SYS.REQ.USER.INFO"}
    owner = holder(found.name)
    assert owner and owner.fingerprint in FIXED


def test_a_scoped_token_has_an_inbox_of_its_own() -> None:
    """In its user's it would read what the owner's other tokens are answered."""
    scoped = changed(IDENTITY, scopes=("GET /",))
    assert admission(scoped, GRANTS, asks=True).subscribe == (f"_INBOX_{TOKEN}.>",)


def test_scopes_that_read_nothing_may_not_ask_either() -> None:
    """A login that would be refused everything is refused."""
    with pytest.raises(Refused, match="scopes"):
        admission(changed(IDENTITY, scopes=()), GRANTS, asks=True)


@pytest.mark.parametrize(
    ("identity", "grants", "account"),
    [
        (IDENTITY, msgspec.structs.replace(GRANTS, is_admin=True), accounts.ARVADOS),
        (changed(IDENTITY, is_root=True), GRANTS, accounts.ARVADOS),
        (
            changed(IDENTITY, scopes=("GET /",)),
            msgspec.structs.replace(GRANTS, is_admin=True),
            accounts.USERS,
        ),
    ],
    ids=["admin", "root", "scoped admin"],
)
def test_who_is_trusted(identity: Identity, grants: Grants, account: str) -> None:
    """Admins without limits and the root token; what Grants say stands over what a login said."""
    assert admission(identity, grants).account == account


def test_admins_get_named_streams_and_can_change_none() -> None:
    """No call that creates, changes or empties a stream (docs/facts/nats-callout.md 9.7)."""
    found = admission(changed(IDENTITY, is_root=True), GRANTS)
    calls = [subject for subject in found.publish if subject.startswith("$JS.API.STREAM")]
    assert {call.split(".")[3] for call in calls} == {"INFO", "MSG", "NAMES"}
    assert not {">", "$JS.>", "$JS.API.>", "$SYS.>"} & set(found.publish)


def test_a_containers_own_token() -> None:
    """Publishes its own logs and reads nothing but their last chunk."""
    identity = changed(IDENTITY, container_uuid=RUNNING)
    found = admission(identity, GRANTS)
    assert found.account == accounts.SENDERS
    assert found.subscribe == (f"_INBOX_{TOKEN}.>",)
    assert all(RUNNING in subject for subject in found.publish)
    owner = holder(found.name)
    assert owner and owner.fingerprint == CONTAINER


def test_scopes_that_read_nothing_are_refused() -> None:
    """With a reason that names the scopes."""
    with pytest.raises(Refused, match="scopes"):
        admission(changed(IDENTITY, scopes=("POST /arvados/v1/none",)), GRANTS)
    assert fingerprint(changed(IDENTITY, scopes=()), GRANTS) is None


def test_scopes_narrow_the_patterns() -> None:
    """A token for single collections hears of collections only."""
    scoped = changed(IDENTITY, scopes=("GET /arvados/v1/collections/",))
    live = [s for s in admission(scoped, GRANTS).subscribe if "live" in s]
    assert live
    assert all(".event.collection." in subject for subject in live)


def test_beyond_the_limit_nothing_is_heard() -> None:
    """Not refused silently: history and whoami work for who asks, and whoami says so."""
    found = admission(IDENTITY, GRANTS, limit=1)
    assert (found.account, found.subscribe) == (accounts.USERS, ())
    asking = admission(IDENTITY, GRANTS, limit=1, asks=True)
    assert "arvados.api.>" in asking.publish


def test_the_name_says_who_and_with_what() -> None:
    """Any replica can tell from a connection's name whether it has what it should."""
    found = admission(IDENTITY, GRANTS)
    owner = holder(found.name)
    assert owner is not None
    assert (owner.user_uuid, owner.token_uuid) == (USER, TOKEN)
    assert owner.fingerprint == fingerprint(IDENTITY, GRANTS)
    fewer = msgspec.structs.replace(GRANTS, targets={USER: DIRECT | OWNED})
    assert owner.fingerprint != fingerprint(IDENTITY, fewer)
    assert replace(owner, fingerprint="x").name != owner.name


@pytest.mark.parametrize(
    "name", ["", "publisher", f"{USER}/{TOKEN}", f"{USER}/{TOKEN}/A B", f"x/{TOKEN}/ab", "a/b/c/d"]
)
def test_other_names_are_nobodys(name: str) -> None:
    """Static users and strange names are not taken for holders of tokens."""
    assert holder(name) is None
