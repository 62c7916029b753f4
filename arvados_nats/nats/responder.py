# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Answering requests: a queue group on some subjects, each question in a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

from arvados_nats.nats.client import Message, Nats
from arvados_nats.nats.jetstream import REQUEST_TIMEOUT

logger = logging.getLogger(__name__)

IN_TURN = 8
"""Requests read before others have their turn, over a connection for what anybody may ask."""

WAIT_SECONDS = REQUEST_TIMEOUT / 2
"""Whose turn comes later has given up, or will before the answer is there, and asks anew: answered
in order, with more questions than can be, none would be one that is waited for."""

Handler = Callable[[Message], Awaitable[None]]


async def answer(
    nats: Nats,
    handlers: Mapping[str, Handler],
    *,
    queue: str,
    at_once: int | None = None,
    wait: float = WAIT_SECONDS,
    ready: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Hand each request to the handler of its subject, until cancelled or shut out (Unavailable).

    `at_once` requests are handled together, the others wait, `wait` seconds at most; None for all.
    `ready` is called when the server knows of the subscriptions. What a handler raises ends the
    responder.
    """
    turn = asyncio.Semaphore(at_once) if at_once else contextlib.nullcontext()
    async with asyncio.TaskGroup() as tasks:

        async def handle(handler: Handler, message: Message) -> None:
            async with contextlib.AsyncExitStack() as turns:
                try:
                    async with asyncio.timeout(wait):
                        await turns.enter_async_context(turn)
                except TimeoutError:
                    logger.info(
                        "a question is left: nobody waits for its answer any more",
                        extra={"action": "responder.left", "subject": message.subject},
                    )
                else:
                    await handler(message)

        def taking(handler: Handler) -> Handler:
            async def take(message: Message) -> None:
                if message.reply:
                    tasks.create_task(handle(handler, message), name="answer")

            return take

        async with contextlib.AsyncExitStack() as stack:
            for subject, handler in handlers.items():
                subscription = await nats.subscribe(subject, taking(handler), queue=queue)
                stack.push_async_callback(subscription.unsubscribe)
            await nats.flush()
            ready()
            await nats.until_closed()
