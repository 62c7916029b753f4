# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Event subscriptions: filters at the server, cursors, and who sees what."""

from __future__ import annotations

import msgspec
import pytest

from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from tests.support.clients import v1 as clients
from tests.support.worlds import site as sites
from tests.support.worlds.site import Site
from tests.v1.conftest import Connect
from wsproxy.cursors import Codec
from wsproxy.events.cursor import EventCursor

FIELDS = {
    "id",
    "uuid",
    "event_type",
    "event_at",
    "created_at",
    "object_uuid",
    "object_kind",
    "object_owner_uuid",
    "verified",
    "properties",
    "cursor",
    "subscription",
}


async def test_an_event_says_what_changed_and_not_who_may_see_it(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """The fields of the protocol; never the audience."""
    async with connect(alice) as client:
        await client.subscribe("a", events={"kinds": ["collection"], "owners": [alice.uuid]})
        made = await cluster.collection("new", owner=alice)
        event = await client.until("event")
        assert set(event) == FIELDS | {"subscription"}
        assert (event["object_uuid"], event["event_type"]) == (made.uuid, "create")
        assert event["verified"] is True
        assert event["properties"]["new_attributes"]["name"] == "new"


async def test_filters_hold_at_the_server(connect: Connect, cluster: Cluster, alice: Actor) -> None:
    """Owners, objects, kinds and types: all lists given must match, any word of each."""
    project = await cluster.project("p", owner=alice)
    async with connect(alice) as client:
        target = {
            "owners": [project.uuid],
            "kinds": ["arvados#collection", "workflow"],
            "event_types": ["create"],
        }
        await client.subscribe("a", events=target)
        await cluster.collection("elsewhere", owner=alice)
        wanted = await cluster.collection("inside", owner=project, by=alice)
        await cluster.update(wanted, {"name": "renamed"}, alice)
        await cluster.project("of another kind", owner=project, by=alice)
        last = await cluster.collection("last", owner=project, by=alice)
        first = await client.until("event")
        second = await client.until("event")
        assert [first["object_uuid"], second["object_uuid"]] == [wanted.uuid, last.uuid]
    async with connect(alice) as client:
        await client.subscribe("b", events={"objects": [wanted.uuid]})
        await cluster.update(last, {"name": "not asked for"}, alice)
        await cluster.update(wanted, {"name": "asked for"}, alice)
        assert (await client.until("event"))["object_uuid"] == wanted.uuid


async def test_a_request_filter_finds_its_container(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """A container has no useful owner: it is found by the request that shows it, and by that
    request's owner."""
    project = await cluster.project("p", owner=alice)
    request = await cluster.container_request("job", owner=project, by=alice)
    async with connect(alice) as by_object, connect(alice) as by_owner:
        await by_object.subscribe("a", events={"objects": [request.uuid], "kinds": ["container"]})
        await by_owner.subscribe("a", events={"owners": [project.uuid], "kinds": ["container"]})
        container = await cluster.run(request)
        for client in (by_object, by_owner):
            assert (await client.until("event"))["object_uuid"] == container.uuid


async def test_nobody_else_sees_it(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """Another user's private object gives no event and moves no cursor that is told."""
    async with connect(bob) as client:
        await client.subscribe("a", events={"kinds": ["collection"], "begin": "now"})
        await client.until("caught_up")
        await cluster.collection("private", owner=alice)
        own = await cluster.collection("own", owner=bob)
        assert (await client.until("event"))["object_uuid"] == own.uuid


async def test_a_cursor_resumes_exactly(connect: Connect, cluster: Cluster, alice: Actor) -> None:
    """What came after the event with the cursor, once, then live (docs/facts/arvados-
    demand.md A1)."""
    filters = {"kinds": ["collection"]}
    async with connect(alice) as client:
        await client.subscribe("a", events=filters)
        await cluster.collection("0", owner=alice)
        cursor = (await client.until("event"))["cursor"]
    missed = [await cluster.collection(str(n), owner=alice) for n in range(1, 6)]
    async with connect(alice) as client:
        await client.subscribe("a", events={**filters, "cursor": cursor})
        await client.until_true(lambda: len(client.of("event")) == 5)
        await client.until_true(lambda: bool(client.of("caught_up")))
        live = await cluster.collection("live", owner=alice)
        await client.until_true(lambda: len(client.of("event")) == 6)
        uuids = [event["object_uuid"] for event in client.of("event")]
        assert uuids == [*(made.uuid for made in missed), live.uuid]
        assert not client.of("gap")


async def test_everything_that_is_kept_can_be_had(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """`begin: oldest` reads the whole stream."""
    made = await cluster.collection("early", owner=alice)
    async with connect(alice) as settled:
        await settled.subscribe("a", events={"objects": [made.uuid], "begin": "oldest"})
        await settled.until("event", object_uuid=made.uuid)


async def test_a_cursor_of_another_life_of_the_stream_is_a_gap(
    connect: Connect, cluster: Cluster, alice: Actor, site: Site
) -> None:
    """Told, with the place where what follows begins; never falsely resumed."""
    seed = (site.keys_folder / "wsproxy.nk").read_text().strip()
    codec = Codec(seed.encode())
    made = await cluster.collection("any", owner=alice)
    async with connect(alice) as client:
        foreign = codec.encode(EventCursor("2001-01-01T00:00:00Z", 3))
        await client.subscribe("a", events={"objects": [made.uuid], "cursor": foreign})
        gap = await client.until("gap")
        assert gap["id"] == "a" and codec.events(gap["cursor"]).sequence == 0
        event = await client.until("event", object_uuid=made.uuid)
        ours = codec.events(event["cursor"])
        assert ours.mark and ours.seen >= ours.sequence
        other = codec.encode(msgspec.structs.replace(ours, mark=ours.mark ^ 1))
        await client.subscribe("b", events={"objects": [made.uuid], "cursor": other})
        assert (await client.until("gap"))["id"] == "b"


@pytest.mark.parametrize("change", ["other key", "cut", "flipped"])
async def test_a_made_up_cursor_is_refused(connect: Connect, alice: Actor, change: str) -> None:
    """It is the client's mistake, and says nothing about what there is."""
    cursor = Codec(b"another cluster's seed").encode(EventCursor("2026", 1))
    if change == "cut":
        cursor = cursor[:-3]
    if change == "flipped":
        cursor = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    async with connect(alice) as client:
        await client.send("subscribe", {"id": "a", "events": {"cursor": cursor}})
        assert (await client.expect("error"))["code"] == "bad_message"


async def test_two_subscriptions_see_the_same_event_once_each(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Each event says to which it is told, and after `unsubscribed` none comes any more (RT26)."""
    async with connect(alice) as client, connect(alice) as other:
        await client.subscribe('"a"', events={"kinds": ["collection"]})
        await client.subscribe("b", events={})
        await other.subscribe("b", events={})
        made = await cluster.collection("c", owner=alice)
        told = [await client.until("event") for _ in range(2)]
        assert {(one["subscription"], one["object_uuid"]) for one in told} == {
            ('"a"', made.uuid),
            ("b", made.uuid),
        }
        assert (await other.until("event"))["subscription"] == "b"
        await client.send("unsubscribe", {"id": "b"})
        await client.until("unsubscribed", id="b")
        again = await cluster.collection("d", owner=alice)
        assert (await client.until("event"))["object_uuid"] == again.uuid
        await client.silence()


async def test_a_cursor_works_on_every_replica(
    connect: Connect, cluster: Cluster, alice: Actor, site: Site
) -> None:
    """One process gives it, another continues from it."""
    filters = {"kinds": ["collection"]}
    async with connect(alice) as client:
        await client.subscribe("a", events=filters)
        await cluster.collection("0", owner=alice)
        cursor = (await client.until("event"))["cursor"]
    missed = await cluster.collection("1", owner=alice)
    async with (
        sites.serving(sites.settings(site)) as other,
        clients.connected(other, alice) as client,
    ):
        await client.subscribe("a", events={**filters, "cursor": cursor})
        assert (await client.until("event"))["object_uuid"] == missed.uuid
        await client.until_true(lambda: bool(client.of("caught_up")))
        assert len(client.of("event")) == 1


async def test_a_tree_of_projects_is_followed_as_it_changes(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Objects at any depth; in projects that are made, moved in with all that is in them, and moved
    out, from the very next object on."""
    top = await cluster.project(owner=alice)
    middle = await cluster.project(owner=top, by=alice)
    bottom = await cluster.project(owner=middle, by=alice)
    apart = await cluster.project(owner=alice)
    inside_apart = await cluster.project(owner=apart, by=alice)
    async with connect(alice) as client:
        events = {"owners": [top.uuid], "below": True, "kinds": ["collection"]}
        await client.subscribe("a", events=events)
        await client.until("caught_up")
        seen: list[str] = []
        unseen: list[str] = []

        async def make(owner: Record, into: list[str]) -> None:
            into.append((await cluster.collection(owner=owner, by=alice)).uuid)

        for project in (top, middle, bottom):
            await make(project, seen)
        await make(inside_apart, unseen)
        newest = await cluster.project(owner=bottom, by=alice)
        await make(newest, seen)
        await cluster.move(apart, bottom, by=alice)
        await make(inside_apart, seen)
        await cluster.move(middle, alice, by=alice)
        await make(newest, unseen)
        await make(top, seen)
        await client.until_true(lambda: len(client.of("event")) >= len(seen))
        assert [event["object_uuid"] for event in client.of("event")] == seen


async def test_below_needs_owners(connect: Connect, alice: Actor) -> None:
    """Everything is below nobody."""
    async with connect(alice) as client:
        await client.send("subscribe", {"id": "a", "events": {"below": True}})
        assert "name the owners" in (await client.until("error"))["message"]
