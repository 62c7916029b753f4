# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a tailer reads next of a file, what it gives out, and when a file began anew."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arvados_nats.contract import log_chunks
from arvados_nats.contract.log_chunks import MAX_CHUNK_BYTES, Chunk
from arvados_nats.errors import BadInput
from publishers.container_logs import file as log_file
from publishers.container_logs.file import MAX_READ, LogFile, Rewritten, Stored

CONTAINER = "zzzzz-dz642-000000000000001"


def read(file: LogFile, content: bytes, size: int | None = None) -> list[Chunk]:
    """One read of a file that holds `content`, as the controller answers it."""
    wanted = file.wanted(len(content) if size is None else size)
    return file.take(content[wanted[0] : wanted[1] + 1]) if wanted else []


def data(chunks: list[Chunk]) -> list[bytes]:
    return [chunk.data for chunk in chunks]


@pytest.fixture
def file() -> LogFile:
    return LogFile(CONTAINER, "stdout.txt")


def test_whole_lines_go_out_at_once(file: LogFile) -> None:
    """All lines of one read are one chunk."""
    (chunk,) = read(file, b"one\ntwo\n")
    assert chunk == Chunk(CONTAINER, "stdout.txt", 0, 0, b"one\ntwo\n")
    assert file.settle() == []


def test_half_line_waits_for_one_poll(file: LogFile) -> None:
    """It goes out at the end of the second poll that has seen it."""
    assert data(read(file, b"one\ntw")) == [b"one\n"]
    assert file.settle() == []
    assert data(file.settle()) == [b"tw"]
    assert file.settle() == []


def test_half_line_that_is_completed_goes_out_as_one(file: LogFile) -> None:
    """A line written in two halves around a poll is not cut."""
    read(file, b"tw")
    assert file.settle() == []
    (chunk,) = read(file, b"two\n")
    assert (chunk.offset, chunk.data) == (0, b"two\n")


def test_line_that_grows_without_end_does_not_wait_for_ever(file: LogFile) -> None:
    """New bytes without a line end do not keep the old ones back for another poll."""
    read(file, b"a")
    assert file.settle() == []
    assert read(file, b"ab") == []
    assert data(file.settle()) == [b"ab"]


def test_new_half_line_begins_to_wait_anew(file: LogFile) -> None:
    """Each half line has its own poll."""
    read(file, b"a")
    assert file.settle() == []
    assert data(read(file, b"a\nb")) == [b"a\n"]
    assert file.settle() == []
    assert data(file.settle()) == [b"b"]


def test_line_longer_than_a_chunk_goes_out_in_pieces(file: LogFile) -> None:
    """130 kB without a line end: only the last piece waits."""
    chunks = read(file, b"x" * 130_000)
    assert [len(chunk.data) for chunk in chunks] == [MAX_CHUNK_BYTES]
    assert [len(chunk.data) for chunk in file.flush()] == [130_000 - MAX_CHUNK_BYTES]


def test_read_is_limited(file: LogFile) -> None:
    """A gigabyte is not asked for at once."""
    assert file.wanted(1 << 30) == (0, MAX_READ - 1)


def test_nothing_to_read(file: LogFile) -> None:
    """Neither at 0 bytes nor at the end, where a range is answered with 416."""
    assert file.wanted(0) is None
    read(file, b"one\n")
    assert file.wanted(4) is None


def test_next_read_begins_with_what_is_known(file: LogFile) -> None:
    """The last bytes are read again, to see that they are the same."""
    read(file, b"x" * 99 + b"\n")
    assert file.wanted(101) == (100 - log_file.OVERLAP, 100)


def test_answer_shorter_than_what_is_known(file: LogFile) -> None:
    """A file that ends within the bytes that are known gives nothing, and is no other file."""
    read(file, b"0123456789\n")
    assert file.take(b"01234") == []
    assert file.take(b"") == []
    assert file.read_to == 11


@pytest.mark.parametrize("answer", [b"abc", b"0123456780\nmore\n"])
def test_other_bytes_at_the_same_place(file: LogFile, answer: bytes) -> None:
    """The file was written anew."""
    read(file, b"0123456789\n")
    with pytest.raises(Rewritten):
        file.take(answer)


def test_new_epoch_begins_at_0(file: LogFile) -> None:
    """What was held back of the old file comes first, in the old epoch."""
    read(file, b"old\nha")
    assert [(c.epoch, c.offset, c.data) for c in file.restart()] == [(0, 4, b"ha")]
    assert [(c.epoch, c.offset, c.data) for c in read(file, b"new\n")] == [(1, 0, b"new\n")]


def test_another_tailer_goes_on_where_the_stream_ends(file: LogFile) -> None:
    """What the first had read and not stored is read again."""
    (chunk,) = read(file, b"one\ntw")
    other = LogFile(CONTAINER, "stdout.txt")
    other.resume(log_file.stored(7, chunk))
    assert [(c.offset, c.data) for c in read(other, b"one\ntwo\n")] == [(4, b"two\n")]


def test_resume_forgets_what_was_read(file: LogFile) -> None:
    """After somebody else wrote, only the stream counts."""
    read(file, b"one\ntw")
    file.resume(Stored(9, epoch=0, offset=2, known=b"on"))
    assert (file.held, file.read_to, file.wanted(7)) == (b"", 2, (0, 6))


STORED = Stored(5, epoch=1, offset=10)


@pytest.mark.parametrize(
    ("last", "chunk", "expected"),
    [
        (Stored(), (0, 0), True),
        (Stored(), (3, 50), True),
        (STORED, (1, 10), True),
        (STORED, (1, 11), False),
        (STORED, (1, 9), False),
        (STORED, (1, 0), False),
        (STORED, (2, 0), True),
        (STORED, (2, 10), False),
        (STORED, (0, 10), False),
    ],
)
def test_which_chunk_may_follow(last: Stored, chunk: tuple[int, int], expected: bool) -> None:
    """One that joins, one that begins a later epoch, or any where nothing is (left)."""
    epoch, offset = chunk
    assert last.is_before(Chunk(CONTAINER, "f", epoch, offset, b"x")) is expected


@pytest.mark.parametrize("name", ["", " x", "a\nb", "a\0b", "x" * 256, "a\x7f", "end", "a/b", "."])
def test_unusable_file_name(name: str) -> None:
    """A name that cannot stand in a header is refused."""
    with pytest.raises(BadInput):
        log_chunks.require_usable(name)


@pytest.mark.parametrize("name", ["stdout.txt", "a b.txt", "käse.txt", "a..b"])
def test_usable_file_name(name: str) -> None:
    """Anything printable may be a file's name."""
    log_chunks.require_usable(name)


@dataclass
class Node:
    """A file on a compute node, and the tailers that come and go; the stream keeps the chunks."""

    content: bytearray = field(default_factory=bytearray)
    epochs: list[bytes] = field(default_factory=list)
    stream: list[Chunk] = field(default_factory=list)
    file: LogFile = field(default_factory=lambda: LogFile(CONTAINER, "f"))

    def poll(self, reads: int, cut_answer_at: int) -> None:
        """One poll of a tailer; an answer may be cut short by a file that is not that long yet."""
        size = len(self.content)
        for _ in range(reads):
            wanted = self.file.wanted(size)
            if wanted is None:
                break
            answer = bytes(self.content[wanted[0] : wanted[1] + 1])[:cut_answer_at]
            self.stream += self.file.take(answer)
        self.stream += self.file.settle()

    def change_tailer(self) -> None:
        """Another replica takes over; what the old one held back is gone with it."""
        self.file = LogFile(CONTAINER, "f")
        if self.stream:
            self.file.resume(log_file.stored(len(self.stream), self.stream[-1]))

    def begin_anew(self) -> None:
        """The file is cut to nothing after a poll that saw all of it; the next one notices."""
        self.poll(1000, 1 << 20)
        self.stream += self.file.restart()
        self.epochs.append(bytes(self.content))
        self.content[:] = b"epoch %d\n" % len(self.epochs)
        self.poll(1000, 1 << 20)

    def arrived(self) -> list[bytes]:
        """The bytes of each epoch, from chunks that must join."""
        found: dict[int, bytearray] = {}
        for chunk in self.stream:
            bytes_so_far = found.setdefault(chunk.epoch, bytearray())
            assert chunk.offset == len(bytes_so_far)
            bytes_so_far += chunk.data
        return [bytes(found.get(n, b"")) for n in range(len(self.epochs) + 1)]


CHARACTERS = st.sampled_from(
    [b"\n", b"a", b"\0", b"\xff", "é".encode(), "\N{GRINNING FACE}".encode()]
)
WRITES = st.builds(lambda parts: ("write", b"".join(parts)), st.lists(CHARACTERS, max_size=200))
POLLS = st.tuples(st.just("poll"), st.integers(1, 3), st.integers(65, 1000))
CHANGES = st.just(("change",))
RESTARTS = st.just(("anew",))


@settings(max_examples=100)
@given(st.lists(WRITES | WRITES | POLLS | POLLS | CHANGES | RESTARTS, max_size=40))
def test_any_bytes_cut_anyhow_arrive_as_they_were(steps: list[tuple[object, ...]]) -> None:
    """Whatever the writes, polls, short answers, changes of tailer and restarts of the file."""
    node = Node()
    for step in steps:
        match step:
            case ("write", bytes(written)):
                node.content += written
            case ("poll", int(reads), int(cut_answer_at)):
                node.poll(reads, cut_answer_at)
            case ("change",):
                node.change_tailer()
            case ("anew",) if node.content:
                node.begin_anew()
    node.poll(1000, 1 << 20)
    node.stream += node.file.flush()
    assert node.arrived() == [*node.epochs, bytes(node.content)]
