# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Lines of a system log come whole, however their bytes are cut, and a pipe keeps offsets."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from publishers.pipes.pipe import Pipe
from publishers.pipes.spool import Spool
from publishers.system_logs.lines import Lines
from publishers.system_logs.pipe import PipeLines

pieces = st.lists(
    st.binary(max_size=12).map(lambda data: data.replace(b"\x00", b"\n")), max_size=30
)


@given(pieces, st.integers(0, 100))
def test_lines_are_whole(given_pieces: list[bytes], offset: int) -> None:
    """Each with the offset after its end; the rest comes when the source has ended."""
    lines, whole = Lines(offset), b"".join(given_pieces)
    found = [item for piece in given_pieces for item in lines.feed(piece)]
    assert [line for _, line in found] + [lines.rest()] == whole.split(b"\n")
    assert all(whole[: end - offset].endswith(line + b"\n") for end, line in found)


@given(pieces, st.integers(0, 8))
def test_lines_too_long_are_left_out(given_pieces: list[bytes], longest: int) -> None:
    """And those after them are not harmed."""
    lines, whole = Lines(max_bytes=longest), b"".join(given_pieces)
    found = [line for piece in given_pieces for _, line in lines.feed(piece)]
    assert found == [line for line in whole.split(b"\n")[:-1] if len(line) <= longest]


@given(st.lists(st.text("ab", max_size=9), max_size=20), st.integers(0, 19))
def test_a_pipe_goes_on_after_a_line(texts: list[str], stored: int) -> None:
    """What is stored is not read again, over a restart too."""

    async def read(cursor: str) -> list[tuple[str, bytes]]:
        spool = Spool(folder, max_bytes=1000)
        try:
            pipe = Pipe(spool)
            pipe.closed = True
            lines = PipeLines(pipe, "name")
            found = [item async for item in lines.lines(cursor)]
            if found:
                lines.stored(found[min(stored, len(found) - 1)][0])
            return found
        finally:
            spool.close()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = Spool(folder, max_bytes=1000)
        spool.append("".join(f"{text}\n" for text in texts).encode())
        spool.close()
        found = asyncio.run(read(""))
        assert [line.decode() for _, line in found] == texts
        if found:
            place = min(stored, len(found) - 1)
            assert asyncio.run(read(found[place][0])) == found[place + 1 :]
