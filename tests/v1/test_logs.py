# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Logs over v1, from the compute node of the sandbox through the tailer to the socket."""

from __future__ import annotations

import asyncio

from arvados_nats.client import stream
from arvados_nats.client.subscription_handle import SubscriptionHandle
from arvados_nats.protocol_v1.messages import Attempt, Log
from sandbox.cluster import Cluster
from sandbox.model.actors import Actor
from sandbox.model.records import Record
from tests.support.clients.v1 import Client
from tests.support.worlds.site import Site
from tests.v1.conftest import Connect


async def _running(cluster: Cluster, owner: Actor, attempts: int = 1) -> tuple[Record, Record]:
    request = await cluster.container_request("job", owner=owner, container_count_max=attempts)
    return request, await cluster.run(request)


async def test_a_request_from_queued_to_final(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Subscribed while queued; attempt, lines as they are written, ends, and then nothing."""
    request = await cluster.container_request("job", owner=alice)
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        attempt = await client.until("attempt")
        container = await cluster.run(request)
        assert attempt == {
            "id": "a",
            "request": request.uuid,
            "container": container.uuid,
            "n": 1,
        }
        await client.until("caught_up")
        await cluster.write_log(container, "stdout.txt", "héllo\n".encode())
        await client.until("log")
        await cluster.write_log(container, "stdout.txt", b"last line without end")
        await cluster.finish(container, exit_code=3)
        end = await client.until("end", request=request.uuid)
        assert end["state"] == "Final"
        content = client.logs.content(container.uuid, "stdout.txt")
        assert content == "héllo\nlast line without end".encode()
        file, whole, _ = client.of("end")
        assert (file["file"], file["size"], file["confirmed"]) == ("stdout.txt", 28, True)
        assert (whole["state"], whole["exit_code"], whole["confirmed"]) == ("Complete", 3, True)
        await client.subscribe("a", events={"owners": []})  # the id is free again


async def test_a_container_by_its_own_uuid(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """Readable through the request that shows it, and only so."""
    _, container = await _running(cluster, alice)
    await cluster.write_log(container, "stderr.txt", b"oh\n")
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": container.uuid})
        await client.until("log")
        assert client.logs.content(container.uuid, "stderr.txt") == b"oh\n"
    async with connect(bob) as client:
        await client.send("subscribe", {"id": "a", "log": {"uuid": container.uuid}})
        assert (await client.expect("error"))["code"] == "not_found"


async def test_forbidden_and_missing_look_alike(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """The same code and the same words."""
    request, _ = await _running(cluster, alice)
    missing = f"{request.uuid[:12]}000000000000000"
    async with connect(bob) as client:
        errors = []
        for uuid in (request.uuid, missing):
            await client.send("subscribe", {"id": "a", "log": {"uuid": uuid}})
            errors.append(await client.expect("error"))
        first, second = errors
        assert first["code"] == second["code"] == "not_found"
        assert first["message"] == second["message"]


async def test_a_retry_is_followed(connect: Connect, cluster: Cluster, alice: Actor) -> None:
    """All there is of the old attempt's log, then `attempt`, then the new one from its beginning:
    byte offsets of one never count for the other (docs/facts/arvados-demand.md A37, W2, G11,
    G12)."""
    request, first = await _running(cluster, alice, attempts=3)
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        await cluster.write_log(first, "stdout.txt", b"first attempt\n")
        await client.until("log")
        await cluster.cancel(first)
        attempt = await client.until("attempt", n=2)
        second = attempt["container"]
        assert second != first.uuid
        container = await cluster.run(request)
        assert container.uuid == second
        await cluster.write_log(container, "stdout.txt", b"2nd\n")
        await cluster.finish(container)
        await client.until("end", request=request.uuid)
        assert client.logs.content(first.uuid, "stdout.txt") == b"first attempt\n"
        assert client.logs.content(second, "stdout.txt") == b"2nd\n"
        ends = [body["container"] for body in client.of("end") if "exit_code" in body]
        assert sorted(ends) == sorted([first.uuid, second])


async def _retried(cluster: Cluster, owner: Actor, client: Client) -> tuple[Record, Record, Record]:
    """A request whose first node has died, watched by `client` since before; both containers."""
    request, first = await _running(cluster, owner, attempts=2)
    await client.subscribe("a", log={"uuid": request.uuid})
    await cluster.write_log(first, "stdout.txt", b"first\n")
    await client.until_content(first.uuid, "stdout.txt", b"first\n")
    await cluster.cancel(first)
    return request, first, await cluster.run(request)


async def test_a_retry_does_not_wait_for_the_end_of_the_former_attempt(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """The node died and its end is not settled for a while: lines of the next attempt are there at
    once, and the former's end comes beside them (docs/facts/arvados-demand.md A34, A37)."""
    async with connect(alice) as client:
        request, first, second = await _retried(cluster, alice, client)
        await cluster.write_log(second, "stdout.txt", b"second\n")
        await client.until_content(second.uuid, "stdout.txt", b"second\n")
        assert not client.of("end")
        end = await client.until("end", container=first.uuid, state="Cancelled")
        assert end["confirmed"] is False
        await cluster.finish(second)
        await client.until("end", request=request.uuid)
        assert [body["n"] for body in client.of("attempt")] == [1, 2]


async def test_a_log_that_is_over_is_read_again_and_again_on_one_connection(
    cluster: Cluster, alice: Actor, site: Site
) -> None:
    """As `logs --attempt` does: what the former reading is still told ends no other, nor does one
    beside it that has less to read."""
    request, container = await _running(cluster, alice)
    content = b"".join(b"line %d\n" % n for n in range(20_000))
    await cluster.write_log(container, "stdout.txt", content)
    await cluster.finish(container)
    url = f"{site.websocket_url.removesuffix('/websocket')}/v1/stream"
    async with stream.connect(url, lambda: alice.token) as events:
        for _ in range(20):
            former = await events.log(request.uuid, tail=0)
            async for message in former:
                if isinstance(message, Attempt):
                    break
            await former.close()
            assert await _read(await events.log(request.uuid)) == content
        beside = [await events.log(uuid) for uuid in (request.uuid, container.uuid, request.uuid)]
        assert await asyncio.gather(*map(_read, beside)) == [content] * 3


async def test_last_lines_of_readings_beside_each_other(
    cluster: Cluster, alice: Actor, site: Site
) -> None:
    """Each is told where it begins: none takes another's first lines for its own."""
    request, container = await _running(cluster, alice)
    lines = [b"line %d\n" % n for n in range(20_000)]
    await cluster.write_log(container, "stdout.txt", b"".join(lines))
    await cluster.finish(container)
    url = f"{site.websocket_url.removesuffix('/websocket')}/v1/stream"
    counts = (1, 5000, 3, 10_000, 0)
    async with stream.connect(url, lambda: alice.token) as events:
        for uuid in (container.uuid, request.uuid):
            beside = [await events.log(uuid, tail=count) for count in counts]
            read = await asyncio.gather(*map(_read, beside))
            assert read == [b"".join(lines[len(lines) - count :]) for count in counts]


async def _read(reading: SubscriptionHandle) -> bytes:
    return b"".join([message.data async for message in reading if isinstance(message, Log)])


async def test_resuming_between_two_attempts(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """With the places of the present attempt and of a former one that has not ended, each byte and
    each end comes once."""
    async with connect(alice) as client:
        request, first, second = await _retried(cluster, alice, client)
        await cluster.write_log(second, "stdout.txt", b"0123456789\n")
        await client.until_content(second.uuid, "stdout.txt", b"0123456789\n")
    target = {
        "uuid": request.uuid,
        "container": second.uuid,
        "from": {"stdout.txt": {"epoch": 0, "offset": 4}},
        "former": {first.uuid: {"stdout.txt": {"epoch": 0, "offset": 2}}},
    }
    async with connect(alice) as client:
        await client.subscribe("a", log=target)
        await client.until("end", container=first.uuid, state="Cancelled")
        await cluster.finish(second)
        await client.until("end", request=request.uuid)
        assert client.logs.content(first.uuid, "stdout.txt") == b"rst\n"
        assert client.logs.content(second.uuid, "stdout.txt") == b"456789\n"
        assert [(a["container"], a["n"]) for a in client.of("attempt")] == [(second.uuid, 2)]
        assert len(client.of("caught_up")) == 1


async def test_attempts_in_the_middle_without_output(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Three attempts, the second empty: each is named, and no text is shown under the wrong one
    (docs/facts/arvados-demand.md G12)."""
    request, first = await _running(cluster, alice, attempts=3)
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        await cluster.write_log(first, "stderr.txt", b"one\n")
        await client.until_content(first.uuid, "stderr.txt", b"one\n")
        await cluster.cancel(first)
        second = await cluster.run(request)
        await client.until("attempt", n=2)
        await cluster.cancel(second)
        third = await cluster.run(request)
        await cluster.write_log(third, "stderr.txt", b"three\n")
        await cluster.finish(third)
        await client.until("end", request=request.uuid)
        assert [body["container"] for body in client.of("attempt")] == [
            one.uuid for one in (first, second, third)
        ]
        assert client.logs.bytes_of == {
            (first.uuid, "stderr.txt", 0): b"one\n",
            (third.uuid, "stderr.txt", 0): b"three\n",
        }


async def test_resuming_at_a_place_of_a_former_attempt(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """What was missed of the old attempt comes first, then the new one from its beginning."""
    request, first = await _running(cluster, alice, attempts=3)
    await cluster.write_log(first, "stdout.txt", b"0123456789\n")
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        await client.until("log")
    await cluster.cancel(first)
    second = await cluster.run(request)
    await cluster.write_log(second, "stdout.txt", b"abcdefghijklmno\n")
    target = {
        "uuid": request.uuid,
        "container": first.uuid,
        "from": {"stdout.txt": {"epoch": 0, "offset": 4}},
    }
    async with connect(alice) as client:
        await client.subscribe("a", log=target)
        await client.until_true(
            lambda: client.logs.content(second.uuid, "stdout.txt") == b"abcdefghijklmno\n"
        )
        assert client.logs.content(first.uuid, "stdout.txt") == b"456789\n"
        assert [(a["container"], a["n"]) for a in client.of("attempt")] == [
            (first.uuid, 1),
            (second.uuid, 2),
        ]


async def test_attempts_that_nobody_watched_are_told_and_can_be_read(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """Who comes for the second attempt learns of the first, and reads it, then the second."""
    request, first = await _running(cluster, alice, attempts=2)
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        await client.until("attempt")
        assert not client.of("attempts"), "there is one"
    await cluster.write_log(first, "stderr.txt", b"why it failed\n")
    await cluster.checkpoint(first)  # else it may go with its node before anybody has read it
    await cluster.cancel(first)
    second = await cluster.run(request)
    await cluster.write_log(second, "stderr.txt", b"again\n")
    async with connect(alice) as client:
        # Who comes before the proxy has heard of the second attempt is told it as it begins.
        await client.subscribe("o", object={"uuid": request.uuid})
        while (await client.until("object"))["record"]["container_uuid"] != second.uuid:
            pass
        await client.subscribe("a", log={"uuid": request.uuid})
        told = await client.until("attempts")
        assert told["containers"] == {first.uuid: 1, second.uuid: 2}
    async with connect(alice) as client:
        await client.subscribe("b", log={"uuid": request.uuid, "container": first.uuid})
        await client.until_content(first.uuid, "stderr.txt", b"why it failed\n")
        await client.until("attempt", id="b", n=2)
        assert [body["n"] for body in client.of("attempt") if body["id"] == "b"] == [1, 2]


async def test_a_made_up_attempt_shows_nothing(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """A container of somebody else is not an attempt of one's own request: told as a gap."""
    _, private = await _running(cluster, bob)
    await cluster.write_log(private, "stdout.txt", b"secret\n")
    request, container = await _running(cluster, alice)
    await cluster.write_log(container, "stdout.txt", b"mine\n")
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid, "container": private.uuid})
        await client.until("log")
        assert client.of("gap")[0]["container"] == private.uuid
        assert client.logs.content(container.uuid, "stdout.txt") == b"mine\n"
        assert not client.logs.content(private.uuid, "stdout.txt")


async def test_what_may_not_be_read_any_more_stops(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """Unshared: `revoked` with the subscription's id, and no byte written afterwards
    (docs/facts/arvados-demand.md G26)."""
    project = await cluster.project("shared", owner=alice)
    request = await cluster.container_request("job", owner=project, by=alice)
    container = await cluster.run(request)
    await cluster.share(project, bob, by=alice)
    async with connect(bob) as one, connect(bob) as other:
        await one.subscribe("a", log={"uuid": request.uuid})
        await other.subscribe("b", log={"uuid": container.uuid})
        for client in (one, other):
            await client.until("caught_up")
        await cluster.write_log(container, "stdout.txt", b"before\n")
        for client in (one, other):
            await client.until_content(container.uuid, "stdout.txt", b"before\n")
        await cluster.unshare(project, bob, by=alice)
        await one.until("revoked", id="a")
        await other.until("revoked", id="b")
        await cluster.write_log(container, "stdout.txt", b"after\n")
        for client in (one, other):
            await client.silence(1.0)
            await client.send("subscribe", {"id": "c", "log": {"uuid": request.uuid}})
            assert (await client.expect("error"))["code"] == "not_found"


async def test_a_request_that_moves_out_of_sight_stops(
    connect: Connect, cluster: Cluster, alice: Actor, bob: Actor
) -> None:
    """No grant has changed, only the request's owner; container subscriptions end as well."""
    project = await cluster.project("shared", owner=alice)
    request = await cluster.container_request("job", owner=project, by=alice)
    container = await cluster.run(request)
    await cluster.share(project, bob, by=alice)
    async with connect(bob) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        await client.subscribe("b", log={"uuid": container.uuid})
        await cluster.move(request, alice, by=alice)
        await client.until_true(lambda: len(client.of("revoked")) == 2)


async def test_only_the_files_that_are_wanted(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """`files` and `tail` as in the feed."""
    request, container = await _running(cluster, alice)
    await cluster.write_log(container, "stdout.txt", b"1\n2\n3\n")
    await cluster.write_log(container, "stderr.txt", b"x\n")
    async with connect(alice) as client:
        await client.subscribe("all", log={"uuid": request.uuid})
        await client.until_true(lambda: len(client.logs.bytes_of) == 2)
    async with connect(alice) as client:
        target = {"uuid": request.uuid, "files": ["stdout.txt"], "tail": 2}
        await client.subscribe("some", log=target)
        await client.until("caught_up")
        assert client.logs.content(container.uuid, "stdout.txt") == b"2\n3\n"
        assert not client.logs.content(container.uuid, "stderr.txt")
    async with connect(alice) as client:
        await client.subscribe("none", log={"uuid": request.uuid, "tail": 0})
        await client.until("caught_up")
        (told,) = client.of("places")
        assert {file: place["offset"] for file, place in told["files"].items()} == {
            "stdout.txt": 6,
            "stderr.txt": 2,
        }
        assert not client.of("log"), "where each goes on, no byte"


async def test_a_job_that_ends_at_once_shows_its_line(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """One line, exit after 10 ms: watched before, and asked for just after
    (docs/facts/arvados-demand.md A33, G1, G2)."""
    request = await cluster.container_request("job", owner=alice)
    async with connect(alice) as early, connect(alice) as late:
        await early.subscribe("a", log={"uuid": request.uuid})
        container = await cluster.run(request)
        await cluster.write_log(container, "stdout.txt", b"only line")
        await asyncio.sleep(0.01)
        await cluster.finish(container)
        await late.subscribe("a", log={"uuid": request.uuid})
        for client in (early, late):
            await client.until("end", request=request.uuid)
            assert client.logs.content(container.uuid, "stdout.txt") == b"only line"
            assert all(end.get("confirmed", True) for end in client.of("end"))
            assert not client.of("gap")


async def test_a_job_without_output_ends(connect: Connect, cluster: Cluster, alice: Actor) -> None:
    """Not "waiting" for ever (docs/facts/arvados-demand.md G9)."""
    request = await cluster.container_request("true", owner=alice)
    container = await cluster.run(request)
    await cluster.finish(container)
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        await client.until("end", request=request.uuid)
        assert not client.of("log") and not client.of("error")


async def test_what_was_streamed_of_a_dead_node_is_kept(
    connect: Connect, cluster: Cluster, alice: Actor
) -> None:
    """One line, then SIGKILL, and nothing was saved: the bytes stay readable, the end is not
    confirmed (docs/facts/arvados-demand.md A34, G1)."""
    request, container = await _running(cluster, alice)
    async with connect(alice) as client:
        await client.subscribe("a", log={"uuid": request.uuid})
        await cluster.write_log(container, "stdout.txt", b"before the crash\n")
        await client.until("log")
        cluster.logs.kill_node(container.uuid)
        await cluster.cancel(container)
        end = await client.until("end", within=60, container=container.uuid, state="Cancelled")
        assert end["confirmed"] is False
    async with connect(alice) as late:
        await late.subscribe("a", log={"uuid": request.uuid})
        await late.until_content(container.uuid, "stdout.txt", b"before the crash\n")
        assert (await late.until("end", file="stdout.txt"))["confirmed"] is False
