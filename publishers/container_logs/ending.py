# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""When the saved log of an ended container may be taken for final, and what its end marker says.

Pure. keep-web may show a listing that is some seconds old, such as the last checkpoint instead of
the final log; so a listing counts once it has as many bytes as the database knows of the
collection that `containers.log` names, or once `patience` has passed since the container ended. A
node that died leaves a checkpoint or nothing: what was streamed stays, and its end is not
confirmed (docs/facts/arvados-demand.md A34, A36).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from arvados_nats.contract.log_chunks import MAX_CHUNK_BYTES, ContainerEnd, FileEnd
from publishers.container_logs.containers import Container
from publishers.container_logs.file import LogFile


def is_settled(container: Container, sizes: Mapping[str, int], *, patience_over: bool) -> bool:
    """Whether `sizes` is the listing of the final saved log, or there will be none."""
    if container.log is None:
        return patience_over or not container.started
    return patience_over or sum(sizes.values()) == container.saved_bytes


def is_missing(container: Container, sizes: Mapping[str, int]) -> bool:
    """Whether a log was saved of which nothing is listed: it is not known then what is in it."""
    return container.log is not None and not sizes and container.saved_bytes != 0


def marker(
    container: Container, files: Iterable[LogFile], sizes: Mapping[str, int]
) -> ContainerEnd:
    """The end marker: each file's size in the stream, and whether the saved log has the same.

    It names as many files as a message has room for; a container may invent more.
    """
    saved = sizes if container.log else {}
    ends = {
        file.name: FileEnd(file.epoch, file.offset, saved.get(file.name) == file.offset)
        for file in sorted(files, key=lambda file: file.name)
    }
    end = ContainerEnd(container.uuid, container.state, container.exit_code, ends)
    while len(end.payload) > MAX_CHUNK_BYTES:
        names = list(end.files)
        kept = names[: len(names) * MAX_CHUNK_BYTES // len(end.payload)]
        end = msgspec.structs.replace(end, files={name: end.files[name] for name in kept})
    return end
