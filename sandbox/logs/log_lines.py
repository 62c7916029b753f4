# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a running container writes: lines that look like those of crunch-run and a real tool.

Pure. Most lines begin with a stamp of fixed width and nanoseconds; node-info has none (facts/
arvados.md 4). The periodic ones are taken from recorded files in `data/logs`, with new stamps.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import resources

_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
_OPENING = (
    "crunch-run sandbox (go1.24) started",
    "Executing container '{container}' using docker runtime",
    "Using container runtime: docker",
    "Using FUSE mount: arvados-fuse 3.2.1, python-arvados-python-client 3.2.1",
    "Fetching Docker image from collection",
    "Loading Docker image from keep",
    "Docker image loaded",
    "Starting container",
    "Waiting for container to finish",
)
_CLOSING = (
    "Container exited with status code {exit_code}",
    "Complete",
)
_CHATTER = (
    "[{n}] reading chunk {n} of reference genome",
    "[{n}] aligned {reads} reads, {rate:.2f} % mapped",
    "[{n}] \x1b[32mok\x1b[0m sample café-{n} checked",
    "[{n}] writing /out/part-{n:05d}.bam",
)
_WARNINGS = (
    "[{n}] WARNING: read group missing, assuming <unknown>",
    "[{n}] retrying after short read (attempt {attempt})",
)

Written = tuple[str, bytes]
"""A file name, and bytes to append to it."""


def stamp(moment: datetime | None = None, nanosecond: int = 0) -> str:
    """A time as crunch-run writes it: nine decimals, Z, always the same width."""
    moment = moment or datetime.now(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}{nanosecond % 1000:03d}Z"


@functools.cache
def _recorded(file: str) -> tuple[str, ...]:
    text = resources.files("sandbox").joinpath(f"data/logs/{file}").read_text(encoding="utf-8")
    return tuple(_STAMP.sub("", line) for line in text.splitlines())


def _stamped(lines: Sequence[str]) -> bytes:
    return "".join(f"{stamp(nanosecond=n)} {line}\n" for n, line in enumerate(lines)).encode()


def opening(container_uuid: str) -> Iterator[Written]:
    """What is written before the command runs."""
    yield "node-info.txt", ("\n".join(_recorded("node-info.txt")) + "\n").encode()
    lines = [line.format(container=container_uuid) for line in _OPENING]
    yield "crunch-run.txt", _stamped(lines)
    yield "crunchstat.txt", _stamped(_recorded("crunchstat.txt")[:3])


def output(first: int, count: int) -> Iterator[Written]:
    """Lines `first` to `first + count - 1` of the command, most to stdout, some to stderr."""
    out, err = [], []
    for n in range(first, first + count):
        if n % 10 == 9:
            err.append(_WARNINGS[n // 10 % len(_WARNINGS)].format(n=n, attempt=n % 3 + 1))
        else:
            line = _CHATTER[n % len(_CHATTER)]
            out.append(line.format(n=n, reads=n * 997, rate=90 + n % 100 / 10.5))
    if out:
        yield "stdout.txt", _stamped(out)
    if err:
        yield "stderr.txt", _stamped(err)


def statistics(round_number: int) -> Iterator[Written]:
    """What crunchstat and arv-mount write every ten seconds."""
    for file, source, start, size in (
        ("crunchstat.txt", "crunchstat.txt", 9, 4),
        ("hoststat.txt", "crunchstat.txt", 9, 4),
        ("arv-mount.txt", "arv-mount.txt", 0, 5),
    ):
        lines = _recorded(source)[start:]
        rounds = max(len(lines) // size, 1)
        first = round_number % rounds * size
        yield file, _stamped(lines[first : first + size])


def closing(exit_code: int) -> Iterator[Written]:
    """What is written after the command ended."""
    yield "crunch-run.txt", _stamped([line.format(exit_code=exit_code) for line in _CLOSING])
