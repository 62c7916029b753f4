# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The spool of a pushed log keeps bytes and their offsets over restarts, within its bound."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.errors import ConfigError
from publishers.pipes import spool as push_spool
from publishers.pipes.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", max_bytes=100)
    yield opened
    opened.close()


def reopened(spool: Spool) -> Spool:
    spool.close()
    return Spool(spool._folder, max_bytes=100)


def test_new_spool_begins_at_0(spool: Spool) -> None:
    """Nobody has pushed this file here before."""
    assert (spool.is_new, spool.end, spool.read(0, 10)) == (True, 0, b"")


def test_bytes_are_read_from_their_offset(spool: Spool) -> None:
    """As often as need be, until they are discarded."""
    assert spool.append(b"01234") and spool.append(b"56789")
    assert [spool.read(offset, 3) for offset in (0, 4, 8, 10, 11)] == [
        b"012",
        b"456",
        b"89",
        b"",
        b"",
    ]


def test_next_process_goes_on(tmp_path: Path) -> None:
    """Bytes and the offset of the next one outlive the process."""
    spool = Spool(tmp_path, max_bytes=100)
    spool.append(b"01234")
    spool = reopened(spool)
    assert (spool.is_new, spool.end, spool.read(0, 10)) == (False, 5, b"01234")
    spool.append(b"5")
    assert spool.read(0, 10) == b"012345"
    spool.close()


def test_offset_outlives_the_bytes(tmp_path: Path) -> None:
    """When all has arrived only the place in the file is kept."""
    spool = Spool(tmp_path, max_bytes=100)
    spool.append(b"01234")
    spool.discard(5)
    spool = reopened(spool)
    assert (spool.is_new, spool.end, spool.read(0, 10)) == (False, 5, b"")
    spool.close()


def test_full_spool_lets_go_of_new_bytes_and_counts_them(tmp_path: Path) -> None:
    """What came first is kept; what comes after the gap has its true offset."""
    spool = Spool(tmp_path, max_bytes=100)
    assert spool.append(b"a" * 90)
    assert not spool.append(b"b" * 20)
    assert not spool.append(b"c" * 20)
    assert spool.end == 130
    spool = reopened(spool)
    assert spool.end == 130
    assert spool.read(0, 200) == b"a" * 90
    spool.discard(90)
    assert spool.append(b"d" * 20)
    assert (spool.end, spool.read(130, 200), spool.read(100, 10)) == (150, b"d" * 20, b"")
    spool.close()


def test_discarding_half_of_it_frees_nothing_that_is_needed(spool: Spool) -> None:
    """A segment goes when its last byte has arrived."""
    spool.append(b"01234")
    spool.discard(3)
    assert spool.read(3, 10) == b"34"
    spool.discard(5)
    spool.append(b"5")
    assert spool.read(5, 10) == b"5"


def test_beginning_elsewhere(spool: Spool) -> None:
    """Standard input begins at another offset than where the last process stopped."""
    spool.append(b"01234")
    spool.begin(3)
    assert (spool.end, spool.read(0, 9)) == (3, b"")
    spool.append(b"34")
    assert spool.read(3, 9) == b"34"


def test_two_processes_do_not_share(spool: Spool) -> None:
    """The second one is told."""
    with pytest.raises(ConfigError, match="another process"):
        Spool(spool._folder, max_bytes=100)


def test_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can lay out a folder for us in a place that all may write to."""
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="another user"):
        Spool(tmp_path, max_bytes=100)


def test_only_the_end_is_left_behind(tmp_path: Path) -> None:
    """After everything has arrived: whoever pushes more of the file goes on there (V7)."""
    spool = Spool(tmp_path / "spool", max_bytes=100)
    spool.append(b"01234")
    spool.discard(5)
    spool.finish()
    spool.close()
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) == 0
    again = Spool(tmp_path / "spool", max_bytes=100)
    assert again.end == 5
    again.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.binary(max_size=30)),
        st.tuples(st.just("send"), st.integers(1, 40)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_what_is_read_is_what_was_written_there(steps: list[tuple[str, object]]) -> None:
    """Over restarts, small segments and a full folder: never a byte at a wrong offset."""
    written = bytearray()
    sent = 0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(push_spool, "_SEGMENT_BYTES", 25)
        spool = Spool(Path(folder), max_bytes=100)
        for step in steps:
            match step:
                case ("append", bytes(data)):
                    spool.append(data)
                    written += data
                case ("send", int(limit)):
                    data = spool.read(sent, limit)
                    assert bytes(written[sent : sent + len(data)]) == data
                    sent += len(data)
                    spool.discard(sent)
                case _:
                    spool = reopened(spool)
            assert spool.end == len(written)
        spool.close()
