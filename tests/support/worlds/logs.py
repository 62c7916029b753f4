# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A cluster whose containers write logs, and replicas of the publisher that carry them to NATS.

PostgreSQL, the API server and nats-server are the sandbox's real ones; a container is run by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from arvados_nats.arvados import client as arvados_client
from arvados_nats.contract import log_chunks, streams, subjects
from arvados_nats.contract.log_chunks import Chunk, ContainerEnd
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from arvados_nats.service import keys
from arvados_nats.service.ops import Health
from publishers.container_logs.pace import Pace
from sandbox import schema
from sandbox.api.app import ApiApp
from sandbox.api.calls import Backend
from sandbox.api.queries import tables
from sandbox.cluster import Cluster, open_cluster
from sandbox.logs.container_logs import ContainerLogs
from sandbox.servers import api_server
from sandbox.servers.api_server import ApiServer
from sandbox.servers.nats_server import NatsServer
from sandbox.servers.postgres import Database
from tests.support import log_replica
from tests.support.log_replica import Place
from tests.support.waiting import until
from wsproxy.logs.hubs import LogHubs

PACE = Pace(fast=0.05, slow=0.2, confirm=1.0, give_up=2.0, push=1.0)
_IMAGE = ". d41d8cd98f00b204e9800998ecf8427e+0 0:0:image.tar\n"
_REQUEST = {
    "command": ["true"],
    "output_path": "/out",
    "cwd": ".",
    "mounts": {"/out": {"kind": "tmp", "capacity": 1000}},
    "runtime_constraints": {"vcpus": 1, "ram": 1 << 28},
    "priority": 500,
    "state": "Committed",
    "use_existing": False,
}


@dataclass(slots=True)
class Job:
    """One container that a test runs by hand, with all the bytes it ever wrote."""

    world: World
    uuid: str
    request_uuid: str
    written: dict[str, bytearray] = field(default_factory=dict)

    async def start(self) -> None:
        """Locked, then Running, with a gateway that answers."""
        root = self.world.cluster.root
        await self.world.cluster.lock(self.uuid, root)
        self.world.logs.start(self.uuid)
        await self.set(state="Running", gateway_address="gateway.example:4567")

    def write(self, file: str, data: bytes) -> None:
        """Write at the end of a log file."""
        self.world.logs.append(self.uuid, file, data)
        self.written.setdefault(file, bytearray()).extend(data)

    def shrink(self, file: str) -> None:
        """The file is cut to nothing, and what was in it is gone."""
        self.world.logs.truncate(self.uuid, file)
        self.written[file].clear()

    async def checkpoint(self) -> None:
        """Save the log to Keep as it is now, and run on."""
        await self.set(log=await self._save(self.world.logs.checkpoint(self.uuid)))

    async def finish(self, state: str = "Complete", exit_code: int = 0) -> None:
        """End in order: the log is saved, the gateway gone, the state final."""
        saved = await self._save(self.world.logs.checkpoint(self.uuid))
        await self.set(state=state, exit_code=exit_code, log=saved)
        self.world.logs.kill_node(self.uuid)

    async def ended_long_ago(self) -> None:
        """Nobody is at work on its log any more."""
        await self.world.backend.rows(
            "UPDATE containers SET finished_at = finished_at - interval '3 h' WHERE uuid = $1",
            self.uuid,
        )

    async def die(self) -> None:
        """The node is gone with all that was not saved; the dispatcher notices and cancels."""
        self.world.logs.kill_node(self.uuid)
        await self.set(state="Cancelled")

    async def set(self, **values: Any) -> None:
        """Change the container's row."""
        await self.world.cluster.update(self.uuid, values, self.world.cluster.root)

    async def _save(self, manifest: str) -> str:
        given = {"manifest_text": manifest}
        saved = await self.world.cluster.create("collection", given, self.world.cluster.root)
        return str(saved["portable_data_hash"])


@dataclass(slots=True)
class World:
    """Everything that runs. `pace` and `scan_seconds` are those of replicas started from now on."""

    cluster: Cluster
    logs: ContainerLogs
    backend: Backend
    api: ApiServer
    database: Database
    nats: Nats
    nats_url: str
    seed: str
    image: str
    pace: Pace = PACE
    scan_seconds: float = 0.1

    async def job(self, *, start: bool = True, attempts: int = 1) -> Job:
        """A container request and its container, running unless told otherwise."""
        given = {**_REQUEST, "container_image": self.image, "container_count_max": attempts}
        request = await self.cluster.create("container_request", given, self.cluster.root)
        job = Job(self, request["container_uuid"], request.uuid)
        if start:
            await job.start()
        return job

    async def next_attempt(self, former: Job) -> Job:
        """The running container that took the place of a cancelled one."""
        request = await self.backend.row(
            "SELECT container_uuid FROM container_requests WHERE uuid = $1", former.request_uuid
        )
        assert request is not None and request["container_uuid"] != former.uuid
        job = Job(self, request["container_uuid"], former.request_uuid)
        await job.start()
        return job

    @contextlib.asynccontextmanager
    async def replica(
        self, health: Health | None = None, *, api_url: str | None = None
    ) -> AsyncIterator[asyncio.Task[None]]:
        """A publisher of container logs with connections of its own, until the block ends."""
        place = msgspec.structs.replace(self.place, api_url=api_url or self.api.url)
        task = asyncio.create_task(log_replica.publish(place, health or Health()))
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def place(self) -> Place:
        """What a replica has to know."""
        return Place(
            nats_url=self.nats_url,
            seed=self.seed,
            api_url=self.api.url,
            token=self.cluster.config.system_root_token,
            dsn=self.database.reader_dsn,
            fast=self.pace.fast,
            slow=self.pace.slow,
            confirm=self.pace.confirm,
            give_up=self.pace.give_up,
            push=self.pace.push,
            scan=self.scan_seconds,
        )

    @contextlib.asynccontextmanager
    async def process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A publisher of container logs in a process of its own; killed at the end."""
        text = msgspec.json.encode(self.place).decode()
        arguments = ("-m", "tests.support.log_replica", text)
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @contextlib.asynccontextmanager
    async def no_database(self) -> AsyncIterator[None]:
        """The database takes no connection of the publishers, and cuts those they have."""
        pool = self.cluster.pool
        await pool.execute(f"ALTER ROLE {schema.READER} CONNECTION LIMIT 0")
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
            schema.READER,
        )
        try:
            yield
        finally:
            await pool.execute(f"ALTER ROLE {schema.READER} CONNECTION LIMIT -1")

    async def watch(self, container_uuid: str) -> None:
        """Say once that somebody watches a container."""
        await self.nats.publish(subjects.log_interest(container_uuid))

    async def messages(self, container_uuid: str) -> list[Chunk | ContainerEnd]:
        """All that the stream holds of a container, in order."""
        pattern = subjects.logs_of(container_uuid)
        return [
            log_chunks.parse(m.subject, m.headers, m.data)
            async for m in self.nats.history(streams.LOGS, pattern)
        ]

    async def chunks(self, container_uuid: str) -> list[Chunk]:
        """The chunks of a container in the order of the stream."""
        return [m for m in await self.messages(container_uuid) if isinstance(m, Chunk)]

    async def content(self, container_uuid: str) -> dict[str, bytes]:
        """Each file of the stream in its last epoch; fails if a byte is missing or doubled."""
        return joined(await self.chunks(container_uuid))

    async def end(self, container_uuid: str) -> ContainerEnd | None:
        """The end marker, if there is one."""
        subject = subjects.log(container_uuid, "end")
        found = [m async for m in self.nats.history(streams.LOGS, subject)]
        assert len(found) <= 1
        end = log_chunks.parse(subject, found[0].headers, found[0].data) if found else None
        assert end is None or isinstance(end, ContainerEnd)
        return end

    async def until_end(self, container_uuid: str) -> ContainerEnd:
        """Wait for the end marker."""
        await until(lambda: self._has_end(container_uuid))
        end = await self.end(container_uuid)
        assert end is not None
        return end

    async def _has_end(self, container_uuid: str) -> bool:
        return await self.nats.last(streams.LOGS, subjects.log(container_uuid, "end")) is not None

    async def until_stored(self, job: Job, file: str, *, within: float = 60) -> None:
        """Wait until the stream holds all that a job has written to a file."""

        async def stored() -> bool:
            found = await self.content(job.uuid)
            return found.get(file, b"") == bytes(job.written.get(file, b""))

        await until(stored, within=within)


def joined(chunks: list[Chunk]) -> dict[str, bytes]:
    """Each file in its last epoch, from chunks that must join without gap or double."""
    files: dict[str, tuple[int, bytearray]] = {}
    for chunk in chunks:
        epoch, data = files.get(chunk.file, (0, bytearray()))
        if chunk.epoch > epoch:
            epoch, data = chunk.epoch, bytearray()
        assert (chunk.epoch, chunk.offset) == (epoch, len(data)), f"{chunk.file} does not join"
        assert 0 < len(chunk.data) <= log_chunks.MAX_CHUNK_BYTES
        data += chunk.data
        files[chunk.file] = epoch, data
    return {file: bytes(data) for file, (_, data) in files.items()}


async def until_calls(world: World, route: str, more: int) -> None:
    """Wait until the API server got `more` calls of a route than it has now."""
    goal = world.backend.faults.count(route) + more

    async def reached() -> bool:
        return world.backend.faults.count(route) >= goal

    await until(reached)


@contextlib.asynccontextmanager
async def open_world(
    nats_server: NatsServer, keys_folder: Any, database: Database
) -> AsyncIterator[World]:
    """A cluster without containers, on a database and a NATS server."""
    seed = keys.load(keys_folder, "publisher").text
    logs = ContainerLogs()
    async with (
        open_cluster(database.dsn) as cluster,
        nats_client.connect([nats_server.url], name="test", seed=seed) as nats,
    ):
        await streams.ensure(nats, streams.log_stream(log_replica.LIMITS))
        backend = Backend(cluster.pool, cluster, logs, await tables.read(cluster.pool))
        image = await cluster.create("collection", {"manifest_text": _IMAGE}, cluster.root)
        async with api_server.run(ApiApp(backend)) as api:
            yield World(
                cluster,
                logs,
                backend,
                api,
                database,
                nats,
                nats_server.url,
                seed,
                image["portable_data_hash"],
            )


@contextlib.asynccontextmanager
async def proxy(nats: Nats, world: World) -> AsyncIterator[LogHubs]:
    """The hubs of one wsproxy, over this connection."""
    async with arvados_client.connect(world.api.url) as arvados:
        hubs = LogHubs(nats, arvados, Health())
        task = asyncio.create_task(hubs.run())
        await asyncio.sleep(0)
        yield hubs
        task.cancel()
        await asyncio.wait([task])
