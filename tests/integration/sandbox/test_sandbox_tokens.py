# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Which tokens the sandbox's API accepts, and as whom: the variants of golden/permissions.json."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest

from sandbox.model import records
from sandbox.model.actors import Actor
from sandbox.sandbox import Sandbox

V1 = "/arvados/v1/"
OK, REFUSED, FORBIDDEN, MISSING = 200, 401, 403, 404


@dataclass(frozen=True)
class World:
    """Tokens of every kind."""

    ann: Actor
    expired: Actor
    future: Actor
    deleted: Actor
    logged_out: Actor
    inactive: Actor
    scoped: Actor
    listing: Actor
    container: str
    other_container: str
    container_token: str
    root: str
    anonymous: str

    @property
    def secret(self) -> str:
        """The secret of ann's token."""
        return self.ann.token.split("/")[2]


@pytest.fixture(scope="module")
async def world(sandbox: Sandbox) -> World:
    """One token of each kind, and a running container with its own."""
    cluster = sandbox.cluster
    ann = await cluster.user("ann")
    now = records.now()
    deleted, out = await cluster.token(ann), await cluster.token(ann)
    await cluster.delete(str(deleted.token_uuid), ann)
    await cluster.logout(out)
    request = await cluster.container_request(owner=ann)
    waiting = await cluster.container_request(owner=ann)
    container = await cluster.run(request)
    auth = await cluster.reload(container["auth_uuid"])
    return World(
        ann=ann,
        expired=await cluster.token(ann, expires_at=now - timedelta(hours=1)),
        future=await cluster.token(ann, expires_at=now + timedelta(hours=1)),
        deleted=deleted,
        logged_out=out,
        inactive=await cluster.user("ian", active=False),
        scoped=await cluster.token(ann, scopes=[f"GET {V1}collections/"]),
        listing=await cluster.token(ann, scopes=[f"GET {V1}collections"]),
        container=container.uuid,
        other_container=str(waiting["container_uuid"]),
        container_token=f"v2/{auth.uuid}/{auth['api_token']}",
        root=cluster.config.system_root_token,
        anonymous=cluster.config.anonymous_user_token,
    )


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token."""
    async with httpx.AsyncClient(base_url=sandbox.api.url + V1) as found:
        yield found


Make = Callable[[World], str]
CASES: list[tuple[str, Make, int, int, int]] = [
    # what, the token, status of token's own record, of users/current, of containers/current
    ("v2", lambda w: w.ann.token, OK, OK, MISSING),
    ("v1", lambda w: w.secret, OK, OK, MISSING),
    ("wrong secret", lambda w: w.ann.token[:-1] + "!", REFUSED, REFUSED, REFUSED),
    ("unknown uuid", lambda w: f"v2/zzzzz-gj3su-{'q' * 15}/{w.secret}", REFUSED, REFUSED, REFUSED),
    ("no container", lambda w: w.ann.token + "/notacontainer", OK, OK, MISSING),
    ("not its own", lambda w: f"{w.ann.token}/{w.container}", REFUSED, REFUSED, REFUSED),
    ("expired", lambda w: w.expired.token, REFUSED, REFUSED, REFUSED),
    ("not yet expired", lambda w: w.future.token, OK, OK, MISSING),
    ("deleted", lambda w: w.deleted.token, REFUSED, REFUSED, REFUSED),
    ("logged out", lambda w: w.logged_out.token, REFUSED, REFUSED, REFUSED),
    ("inactive user", lambda w: w.inactive.token, OK, OK, MISSING),
    ("scoped", lambda w: w.scoped.token, OK, FORBIDDEN, FORBIDDEN),
    ("root", lambda w: w.root, OK, OK, MISSING),
    ("root as v2", lambda w: f"v2/zzzzz-gj3su-000000000000000/{w.root}", REFUSED, REFUSED, REFUSED),
    ("anonymous", lambda w: w.anonymous, OK, OK, MISSING),
    ("anonymous as v2", lambda w: f"v2/zzzzz-gj3su-anonymouspublic/{w.anonymous}", OK, OK, MISSING),
    ("container", lambda w: f"{w.container_token}/{w.container}", OK, OK, OK),
    ("container, no suffix", lambda w: w.container_token, OK, OK, OK),
    ("container, other suffix", lambda w: f"{w.container_token}/{w.other_container}",
     REFUSED, REFUSED, REFUSED),
    ("empty parts", lambda w: "v2//", REFUSED, REFUSED, REFUSED),
    ("garbage", lambda w: "undefined", REFUSED, REFUSED, REFUSED),
]  # fmt: skip


@pytest.mark.parametrize(("what", "make", "own", "user", "container"), CASES)
async def test_a_token_is_accepted_as_recorded(
    client: httpx.AsyncClient, world: World, what: str, make: Make, own: int, user: int,
    container: int,
) -> None:  # fmt: skip
    """401 when it is not valid, 403 when its scopes do not cover the request."""
    headers = {"Authorization": f"Bearer {make(world)}"}
    paths = ("api_client_authorizations/current", "users/current", "containers/current")
    got = [(await client.get(path, headers=headers)).status_code for path in paths]
    assert got == [own, user, container], what


async def test_a_salted_token_works_only_for_its_cluster(
    client: httpx.AsyncClient, world: World
) -> None:
    """With `remote=` it is accepted, and the answer holds no secret."""
    salted = hmac.new(world.secret.encode(), b"zothr", hashlib.sha1).hexdigest()
    headers = {"Authorization": f"Bearer v2/{world.ann.token_uuid}/{salted}"}
    path = "api_client_authorizations/current"
    assert (await client.get(path, headers=headers)).status_code == REFUSED
    answer = await client.get(path, headers=headers, params={"remote": "zothr"})
    assert (answer.status_code, answer.json()["api_token"]) == (OK, None)


async def test_scopes_name_a_path_or_a_prefix(client: httpx.AsyncClient, world: World) -> None:
    """`…/collections/` allows single ones only, `…/collections` the list only."""
    single = {"Authorization": f"Bearer {world.scoped.token}"}
    listing = {"Authorization": f"Bearer {world.listing.token}"}
    assert (await client.get("collections", headers=single)).status_code == FORBIDDEN
    assert (await client.get("collections/x", headers=single)).status_code == MISSING
    assert (await client.get("collections", headers=listing)).status_code == OK
    assert (await client.get("collections/x", headers=listing)).status_code == FORBIDDEN


async def test_a_merged_user_acts_as_the_other(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """Their old token opens what belongs to the user they were merged into."""
    cluster = sandbox.cluster
    old, new = await cluster.user("old"), await cluster.user("new")
    await cluster.merge_users(old, new, cluster.root, owner=new, redirect=True)
    headers = {"Authorization": f"Bearer {old.token}"}
    assert (await client.get("users/current", headers=headers)).json()["uuid"] == new.uuid


async def test_a_container_token_ends_with_the_container(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Valid while it runs, 401 from then on."""
    cluster = sandbox.cluster
    user = await cluster.user("ann")
    container = await cluster.run(await cluster.container_request(owner=user))
    auth = await cluster.reload(container["auth_uuid"])
    token = f"v2/{auth.uuid}/{auth['api_token']}/{container.uuid}"
    headers = {"Authorization": f"Bearer {token}"}
    assert (await client.get("containers/current", headers=headers)).status_code == OK
    await cluster.finish(container)
    assert (await client.get("containers/current", headers=headers)).status_code == REFUSED


async def test_an_admin_sees_permission_links_of_anything(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """`permissions/{uuid}`: for admins and managers, 403 for other readers."""
    cluster = sandbox.cluster
    user, reader = await cluster.user("ann"), await cluster.user("rob")
    project = await cluster.project(owner=user)
    link = await cluster.share(project, reader)
    for token, status in ((cluster.root.token, OK), (user.token, OK), (reader.token, FORBIDDEN)):
        headers = {"Authorization": f"Bearer {token}"}
        answer = await client.get(f"permissions/{project.uuid}", headers=headers)
        assert answer.status_code == status
        if status == OK:
            assert [item["uuid"] for item in answer.json()["items"]] == [link.uuid]
