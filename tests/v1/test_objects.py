# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Object subscriptions: the state, then every later one, at the price of one read."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from tests.support.clients.v1 import Client
from tests.support.worlds.site import Site
from tests.v1.conftest import Connect


async def test_the_state_and_then_each_change(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """The record at once, a change when it happens."""
    made = await cluster.collection("first", owner=alice)
    async with connect(alice) as client:
        await client.subscribe("a", object={"uuid": made.uuid})
        state = await client.until("object")
        assert state["uuid"] == made.uuid and state["record"]["name"] == "first"
        await cluster.update(made, {"name": "second"}, alice)
        changed = await client.until("object")
        assert changed["record"]["name"] == "second"
        assert changed["etag"] != state["etag"]


async def test_a_known_etag_gets_nothing_until_it_differs(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """A client that holds the state is told only of another one."""
    made = await cluster.collection("first", owner=alice)
    async with connect(alice) as client:
        await client.subscribe("a", object={"uuid": made.uuid})
        etag = (await client.until("object"))["etag"]
    async with connect(alice) as client:
        await client.subscribe("a", object={"uuid": made.uuid, "etag": etag})
        await client.silence()
        await cluster.update(made, {"name": "second"}, alice)
        assert (await client.until("object"))["record"]["name"] == "second"
    async with connect(alice) as client:
        await client.subscribe("a", object={"uuid": made.uuid, "etag": etag})
        assert (await client.until("object"))["record"]["name"] == "second"


async def test_a_page_sees_a_request_through_a_retry_without_a_read(
    connect: Connect, cluster: Cluster, site: Site, alice: Actor
) -> None:
    """From Committed to Final, retried once; request and container come in one record, and Arvados
    is asked nothing after the first record (docs/facts/arvados-demand.md A14)."""
    request = await cluster.container_request("job", owner=alice, container_count_max=2)
    async with connect(alice) as client:
        await client.subscribe("a", object={"uuid": request.uuid})
        first = (await client.until("object"))["record"]
        assert (first["state"], first["container"]["state"]) == ("Committed", "Queued")
        assert isinstance(first["container"]["priority"], str)
        asked = site.backend.faults.count("GET /arvados/v1/container")
        container = await cluster.run(request)
        await client.until_true(lambda: _container(client.of("object"))["state"] == "Running")
        await cluster.progress(container, 0.5)
        await client.until_true(lambda: _container(client.of("object"))["progress"] == 0.5)
        await cluster.cancel(container)
        await client.until_true(
            lambda: _container(client.of("object"))["uuid"] not in ("", container.uuid)
        )
        retried = await cluster.run(request)
        assert _container(client.of("object"))["uuid"] == retried.uuid
        await cluster.finish(retried, exit_code=2)
        await client.until_true(lambda: client.of("object")[-1]["record"]["state"] == "Final")
        last = client.of("object")[-1]["record"]
        assert last["container"]["exit_code"] == 2
        assert last["container"]["state"] == "Complete"
        assert site.backend.faults.count("GET /arvados/v1/container") == asked


def _container(objects: list[dict[str, object]]) -> dict[str, object]:
    record = objects[-1]["record"]
    assert isinstance(record, dict)
    container = record["container"]
    return container if isinstance(container, dict) else {"state": "", "uuid": "", "progress": 0}


async def test_500_changes_at_once_end_on_the_final_state(
    connect: Connect, cluster: Cluster, site: Site, alice: Actor, bob: Actor
) -> None:
    """In few messages, never an older state after a newer one, and without another read."""
    project = await cluster.project("shared", owner=alice)
    await cluster.share(project, bob, by=alice)
    made = await cluster.collection("0", owner=project, by=alice)
    reads = site.backend.faults.count("GET /arvados/v1/collections")
    async with connect(alice) as one, connect(bob) as other:
        for client in (one, other):
            await client.subscribe("a", object={"uuid": made.uuid})
            await client.until("object")
        async with cluster.transaction() as burst:
            for number in range(1, 501):
                await burst.update(made, {"name": str(number)}, alice)
        for client in (one, other):
            await client.until_true(_shows(client, "500"))
            names = [int(state["record"]["name"]) for state in client.of("object")]
            assert names == sorted(set(names))
            assert len(names) < 50
            await client.silence()
    assert site.backend.faults.count("GET /arvados/v1/collections") == reads + 1


async def test_one_read_serves_all_viewers(
    connect: Connect, cluster: Cluster, site: Site, alice: Actor, bob: Actor
) -> None:
    """The second viewer costs no read of the record, and gets the same bytes."""
    project = await cluster.project("shared", owner=alice)
    await cluster.share(project, bob, by=alice)
    made = await cluster.collection("c", owner=project, by=alice)
    async with connect(alice) as one, connect(bob) as other:
        await one.subscribe("a", object={"uuid": made.uuid})
        first = await one.until("object")
        before = site.backend.faults.count("GET /arvados/v1/collections")
        await other.subscribe("b", object={"uuid": made.uuid})
        assert await other.until("object") == first
        assert site.backend.faults.count("GET /arvados/v1/collections") == before


def _shows(client: Client, name: str) -> Callable[[], bool]:
    return lambda: client.of("object")[-1]["record"]["name"] == name


async def test_deletion_and_loss_of_permission_look_alike(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """`revoked` with the same words, and silence afterwards."""
    project = await cluster.project("shared", owner=alice)
    await cluster.share(project, bob, by=alice)
    moved = await cluster.collection("moved", owner=project, by=alice)
    deleted = await cluster.container_request("d", owner=project, by=alice)
    hidden = await cluster.collection("hidden", owner=project, by=alice)
    async with connect(bob) as client:
        for id, made in (("m", moved), ("d", deleted), ("h", hidden)):
            await client.subscribe(id, object={"uuid": made.uuid})
            await client.until("object", uuid=made.uuid)
        await cluster.move(moved, alice, by=alice)
        await client.until("revoked", id="m")
        await cluster.delete(deleted, alice)
        await client.until("revoked", id="d")
        await cluster.unshare(project, bob, by=alice)
        await client.until("revoked", id="h")
        assert len({told["reason"] for told in client.of("revoked")}) == 1
        await cluster.update(moved, {"name": "unseen"}, alice)
        await cluster.update(hidden, {"name": "unseen"}, alice)
        await client.silence(1.0)
        assert not [o for o in client.of("object") if o["record"].get("name") == "unseen"]


async def test_trash_ends_it(connect: Connect, cluster: Cluster, alice: Actor) -> None:
    """A state is judged as a plain GET: what is in the trash has none."""
    made = await cluster.collection("c", owner=alice)
    async with connect(alice) as client:
        await client.subscribe("a", object={"uuid": made.uuid})
        await client.until("object")
        await cluster.trash(made, alice)
        await client.until("revoked", id="a")


async def test_a_forged_row_changes_no_state(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Any user may post a log row about an object; it is no fact (docs/facts/arvados.md 0.3)."""
    made = await cluster.collection("true", owner=alice)
    async with connect(alice) as client:
        await client.subscribe("a", object={"uuid": made.uuid})
        await client.until("object")
        await cluster.log(
            alice,
            object_uuid=made.uuid,
            event_type="update",
            properties={"new_attributes": {"name": "forged", "modified_at": "2999-01-01"}},
        )
        await cluster.update(made, {"name": "also true"}, alice)
        await client.until_true(lambda: client.of("object")[-1]["record"]["name"] == "also true")
        assert "forged" not in {o["record"]["name"] for o in client.of("object")}


async def test_a_container_is_shown_by_its_request_alone(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """A container of its own uuid: live while a request shows it, and ended with that."""
    project = await cluster.project("shared", owner=alice)
    await cluster.share(project, bob, by=alice)
    request = await cluster.container_request("job", owner=project, by=alice)
    async with connect(bob) as client:
        container = await cluster.run(request)
        await client.subscribe("a", object={"uuid": container.uuid})
        assert (await client.until("object"))["record"]["state"] == "Running"
        await cluster.progress(container, 0.25)
        assert (await client.until("object"))["record"]["progress"] == 0.25
        await cluster.move(request, alice, by=alice)
        await client.until("revoked", id="a")
        await cluster.progress(container, 0.5)
        await client.silence()


async def test_a_scoped_token_sees_what_its_scopes_cover(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Requests but not their logs, and no collections."""
    request = await cluster.container_request("job", owner=alice)
    made = await cluster.collection("c", owner=alice)
    path = f"GET /arvados/v1/container_requests/{request.uuid}"
    scoped = await cluster.token(alice, scopes=[path])
    async with connect(scoped) as client:
        await client.subscribe("a", object={"uuid": request.uuid})
        assert (await client.until("object"))["record"]["container"] is None
        for target in ({"object": {"uuid": made.uuid}}, {"log": {"uuid": request.uuid}}):
            await client.send("subscribe", {"id": "b", **target})
            await client.until("error", code="not_found", id="b")


async def test_logs_need_the_scopes_of_the_request_and_of_its_container(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """As Arvados reads both with the caller's token; a scope for one attempt ends with it."""
    request = await cluster.container_request("job", owner=alice)
    container = await cluster.run(request)
    requests = "GET /arvados/v1/container_requests/"
    for uuid in (request.uuid, container.uuid):
        narrow = await cluster.token(alice, scopes=[requests])
        async with connect(narrow) as client:
            await client.send("subscribe", {"id": "a", "log": {"uuid": uuid}})
            await client.until("error", code="not_found", id="a")
        wide = await cluster.token(alice, scopes=[requests, "GET /arvados/v1/containers/"])
        async with connect(wide) as client:
            await client.subscribe("a", log={"uuid": uuid})
            await client.until("caught_up")
    one = f"GET /arvados/v1/containers/{container.uuid}"
    async with connect(await cluster.token(alice, scopes=[requests, one])) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        await client.until("caught_up")
        await cluster.cancel(request, "node died")
        await client.until("revoked", id="a")
