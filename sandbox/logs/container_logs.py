# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The bytes of container logs: live files on the compute node, and what was saved of them to Keep.

Stands where crunch-run, its gateway and Keep stand in a real cluster (docs/facts/arvados.md 4). A
log that is saved yields a manifest; the bytes of its blocks stay here, so that a collection with
that manifest can be read back through the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandbox.logs import manifests
from sandbox.logs.log_files import Disk, GrowingFile, Snapshot, Source, snapshot
from sandbox.logs.manifests import Segment


class GatewayDown(Exception):
    """The compute node does not answer: dead, or its tunnel is."""


class LostBlock(Exception):
    """A manifest names bytes that nobody saved here."""


@dataclass(slots=True)
class LiveLog:
    """The log folder of one running container, as its gateway serves it."""

    files: dict[str, Source] = field(default_factory=dict)
    tunnel_up: bool = True


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of a saved log: `parts` joined."""

    parts: tuple[tuple[Snapshot, Segment], ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(segment.length for _, segment in self.parts)

    @property
    def modified(self) -> float:
        """When the newest part was written."""
        return max((content.modified for content, _ in self.parts), default=0.0)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to before `stop`, as far as there are any."""
        pieces, position = [], 0
        for content, segment in self.parts:
            first = max(start - position, 0)
            last = min(stop - position, segment.length)
            if first < last:
                pieces.append(content.read(segment.offset + first, segment.offset + last))
            position += segment.length
        return b"".join(pieces)


class ContainerLogs:
    """All container logs of one sandbox.

    `empty_folder`: before anything is saved, `…/log/<container>` is an empty folder; switched off
    it is 404, which newer controllers answer.
    """

    def __init__(self) -> None:
        self.empty_folder = True
        self._live: dict[str, LiveLog] = {}
        self._blocks: dict[str, Snapshot] = {}
        self._disk = Disk()

    def start(self, container_uuid: str) -> None:
        """The gateway of this container begins to answer, with no file yet."""
        self._live.setdefault(container_uuid, LiveLog())

    def put(self, container_uuid: str, file: str, content: Source) -> None:
        """Let a live file be this source, for instance a computed one."""
        self._live_log(container_uuid).files[file] = content

    def append(self, container_uuid: str, file: str, data: bytes) -> None:
        """Write at the end of a live file, which is made if need be."""
        self._growing(container_uuid, file).append(data)

    def truncate(self, container_uuid: str, file: str, size: int = 0) -> None:
        """Let a live file shrink to `size` bytes."""
        self._growing(container_uuid, file).truncate(size)

    def set_tunnel(self, container_uuid: str, *, up: bool) -> None:
        """Cut or mend the way to the gateway; the files live on."""
        self._live_log(container_uuid).tunnel_up = up

    def kill_node(self, container_uuid: str) -> None:
        """The compute node dies: its gateway and every byte that was not saved are gone."""
        self._live.pop(container_uuid, None)

    def checkpoint(self, container_uuid: str) -> str:
        """Save the live files as they are now; the manifest of a collection that holds them."""
        saved = {
            name: snapshot(content, self._disk)
            for name, content in self._live_log(container_uuid).files.items()
        }
        self._blocks.update({content.name: content for content in saved.values()})
        return manifests.write(saved)

    def finish(self, container_uuid: str) -> str:
        """Save the live files for good and end the gateway; answers like `checkpoint`."""
        manifest = self.checkpoint(container_uuid)
        self.kill_node(container_uuid)
        return manifest

    def live(self, container_uuid: str) -> Mapping[str, Source]:
        """The files that the gateway serves; `GatewayDown` when it cannot be reached."""
        log = self._live.get(container_uuid)
        if log is None or not log.tunnel_up:
            raise GatewayDown(f"no gateway answers for {container_uuid}")
        return log.files

    def saved(self, manifest: str) -> dict[str, Source]:
        """Path -> content of a collection; `LostBlock` for bytes that were not saved here."""
        return {
            path: SavedFile(tuple((self._block(part), part) for part in parts))
            for path, parts in manifests.files(manifest).items()
        }

    def size(self, container_uuid: str, file: str) -> int:
        """Bytes of a live file now, 0 when there is none."""
        log = self._live.get(container_uuid)
        content = log.files.get(file) if log else None
        return content.size if content else 0

    def _block(self, segment: Segment) -> Snapshot:
        if segment.locator not in self._blocks:
            raise LostBlock(segment.locator)
        return self._blocks[segment.locator]

    def _live_log(self, container_uuid: str) -> LiveLog:
        log = self._live.get(container_uuid)
        if log is None:
            raise GatewayDown(f"container {container_uuid} has no live log")
        return log

    def _growing(self, container_uuid: str, file: str) -> GrowingFile:
        content = self._live_log(container_uuid).files.setdefault(file, GrowingFile())
        if not isinstance(content, GrowingFile):
            raise TypeError(f"{file} is computed and cannot be written to")
        return content
