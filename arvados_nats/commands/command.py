# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How a command for people runs: Ctrl-C, a reader that has gone, notes on standard error.

The exit codes are those that shells know: 130 after Ctrl-C, 141 when whoever read the output has
gone. Errors of ours are told by the command group.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import stat
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

from arvados_nats.commands.sanitize import harmless_text

INTERRUPTED = 130
READER_GONE = 141
_ERASE = "\r\x1b[K"


def run(main: Coroutine[Any, Any, int | None]) -> NoReturn:
    """Run a command to its end and exit with its code."""
    logging.getLogger().addHandler(logging.NullHandler())
    # asyncio's own way would wait for a write that blocks; a paused pager does that.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        code = asyncio.run(_while_read(main))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = READER_GONE
    sys.exit(_flushed(code))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _flushed(code: int) -> int:
    """Write what is left, unless nobody reads it: then no error may come of it at exit."""
    try:
        if code not in (INTERRUPTED, READER_GONE):
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        code = READER_GONE
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


async def _while_read(main: Coroutine[Any, Any, int | None]) -> int:
    """The command, ended at once when the reader of a pipe closes it, as `tail -f` does."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    def reader_gone() -> None:
        nonlocal gone
        gone = True
        loop.remove_reader(output)
        task.cancel()

    loop = asyncio.get_running_loop()
    output = _pipe()
    if output >= 0:
        loop.add_reader(output, reader_gone)  # a pipe's writing end wakes only for this
    try:
        return await main or 0
    except asyncio.CancelledError:
        if gone:
            raise BrokenPipeError from None
        raise


def _pipe() -> int:
    """The descriptor of standard output if it is a pipe, else -1."""
    try:
        output = sys.stdout.fileno()
        return output if stat.S_ISFIFO(os.fstat(output).st_mode) else -1
    except (OSError, ValueError):
        return -1


def write(data: bytes) -> None:
    """Write to standard output, at once."""
    if data:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


class Notes:
    """What is said beside the output, on standard error; progress only on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._progress = False

    @property
    def seen(self) -> bool:
        """Whether anybody sees progress."""
        return self._terminal

    def tell(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        sys.stderr.write(f"arvados-nats: {harmless_text(text)}\n")
        sys.stderr.flush()

    def progress(self, text: str) -> None:
        """A line that the next one replaces."""
        if self._terminal:
            self._progress = True
            # A second line would stay: only the one of the cursor is erased.
            columns = shutil.get_terminal_size().columns
            sys.stderr.write(f"{_ERASE}{text[: columns - 1]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the progress line away."""
        if self._progress:
            self._progress = False
            sys.stderr.write(_ERASE)
            sys.stderr.flush()
