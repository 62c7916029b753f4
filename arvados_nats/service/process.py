# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Run a service as a process: signals, exit codes and one line of JSON per log record.

Exit code 0 after SIGTERM or SIGINT, 2 where what is written on this machine is wrong, so that
starting again would not help, and 1 on any other failure. Imports no service.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import uvloop
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from arvados_nats.errors import ArvadosNatsError, ConfigError, Disagreement
from arvados_nats.service import tracing, unencrypted

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=BaseSettings)

_RECORD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, message, and the facts in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((k, v) for k, v in record.__dict__.items() if k not in _RECORD_FIELDS)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr(level: str = "INFO") -> None:
    """Send all log records to standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def load(settings: Callable[[], S]) -> S:
    """Read the settings; ConfigError names each wrong one and never shows its value."""
    try:
        return settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: "
            + item["msg"].removeprefix("Value error, ")
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigError(wrong) from error


def run(main: Callable[[S], Awaitable[None]], settings: Callable[[], S]) -> int:
    """Run `main(settings)` until it ends or a signal comes; the exit code."""
    log_to_stderr()
    # A dump of the memory would hold tokens and seeds.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        loaded = load(settings)
        log_to_stderr(getattr(loaded, "log_level", "INFO"))
        _warn(loaded)
        with _tracing(loaded):
            uvloop.run(_until_signal(main(loaded)))
    except Exception as error:
        return _report(error)
    return 0


def _warn(settings: BaseSettings) -> None:
    for name, text in unencrypted.warnings(settings):
        logger.warning(text, extra={"action": "process.unencrypted", "setting": name})


def _tracing(settings: BaseSettings) -> AbstractContextManager[None]:
    """As the settings say, if they say anything; the service is called like its room."""
    room = type(settings).__module__.partition(".")[0]
    url, share = getattr(settings, "traces_url", ""), getattr(settings, "traces_share", 0.0)
    return tracing.exported(url, f"arvados-nats-{room}", share)


def _report(error: BaseException) -> int:
    """Log why a service ended, and give its exit code."""
    causes = list(_leaves(error))
    for cause in causes:
        if isinstance(cause, ConfigError):
            logger.error("bad settings", extra={"action": "process.config", "error": str(cause)})
        elif isinstance(cause, ArvadosNatsError):
            logger.error("service failed", extra={"action": "process.failed", "error": str(cause)})
        else:
            logger.error("service failed", extra={"action": "process.crashed"}, exc_info=cause)
    ours = [c for c in causes if isinstance(c, ConfigError) and not isinstance(c, Disagreement)]
    return 2 if ours else 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


async def _until_signal(service: Awaitable[None]) -> None:
    """Wait for the service; a signal cancels it, and it closes its resources in reverse order."""
    task = asyncio.ensure_future(service)
    loop = asyncio.get_running_loop()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise
        logger.info("stopped", extra={"action": "process.stopped"})
