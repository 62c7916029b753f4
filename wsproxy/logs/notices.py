# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a reader of a log is told beside its bytes: where they begin, what is missing, and the end.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from arvados_nats.contract.log_chunks import ContainerEnd
from arvados_nats.protocol_v1.messages import End, Error, Gap, Place, Places
from wsproxy.logs.pieces import Hole
from wsproxy.logs.place import LogPlace


def places(id: str, container: str, begins: Mapping[str, LogPlace]) -> Places:
    """Where the last lines of each file begin."""
    return Places(id, container, {file: Place(at.epoch, at.offset) for file, at in begins.items()})


def gap(id: str, container: str, file: str, hole: Hole) -> Gap:
    """Bytes of a file that are not to be had."""
    return Gap(
        id,
        hole.reason,
        container=container,
        file=file,
        epoch=hole.place.epoch,
        from_=hole.place.offset,
        to=hole.to,
    )


def ends(
    id: str, end: ContainerEnd, follows: Callable[[str], bool], *, hidden: bool
) -> Iterator[End | Error]:
    """The end of each file that the reader `follows`, then the container's; `hidden`: Arvados does
    not show the reader the saved log, with which the bytes were to be compared."""
    container = end.container_uuid
    for name in sorted(filter(follows, end.files)):
        last = end.files[name]
        yield End(
            id=id,
            container=container,
            file=name,
            epoch=last.epoch,
            size=last.size,
            confirmed=last.confirmed,
        )
    if hidden:
        reason = "the saved log is not there any more, or not shown to this token"
        yield Error("log_gone", reason, False, id)
    yield End(
        id=id,
        container=container,
        state=end.state,
        exit_code=end.exit_code,
        confirmed=not hidden and all(last.confirmed for last in end.files.values()),
    )
