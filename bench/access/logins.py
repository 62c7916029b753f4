# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Native logins through the auth callout: new tokens, known tokens, everybody back after a restart.

`cold`: each token for the first time, so Arvados is asked. `cached`: the same tokens again.
`wrong`: tokens that Arvados does not know. `mixed`: new tokens and wrong ones in turn, all at
once; who cannot be decided about within the budget is refused and tries again (`mixed_tries`:
the most that anybody needed), and in the end exactly the good ones are in. `outage`: Arvados' API
is away for so long (`--outage`) under 500 clients; in each second fifty more connections come
with their tokens, and a new token tries; `outage_calls_after` counts what the API gets in the 5 s
after it is back. `storm`: so many clients, in turn over the tokens, are cut by a restart of the
NATS server and all try again until they are in; the callout service has lost its own connection,
and known tokens must not send anybody to Arvados. Except in `mixed`, clients log in so many at
once (`--at-once`): a 2-core machine that holds clients, servers and Arvados' API needs that; NATS
clients spread their reconnects by a random delay for the same reason. `most_calls` is the largest
number of calls that the pretend Arvados had under way at once. Its API is in Python: `cold` shows
its speed more than ours.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from array import array
from collections.abc import Sequence
from typing import Any

from bench import figures, processes
from bench.crowd import clients as crowds
from bench.crowd import native
from bench.crowd.clients import Clients
from bench.figures import Figures
from bench.worlds.cluster import World, world
from sandbox import stack
from sandbox.model.actors import Actor
from sandbox.servers.api_server import ApiServer
from sandbox.stack import Stack

_STAY = 500
_COME_BACK = 50
_AFTERWARDS = 5.0


def _hello(actor: Actor) -> bytes:
    return native.login(actor.token, [f"arvados.live.{actor.uuid}.>"])


def _address(services: Stack) -> tuple[str, int]:
    host, _, port = services.sandbox.nats.url.rpartition("//")[2].rpartition(":")
    return host, int(port)


def _figures(took: array[float], began: float, calls: int, name: str) -> Figures:
    admitted = [seconds for seconds in took if seconds >= 0]
    elapsed = time.monotonic() - began
    return {
        f"{name}_logins": len(took),
        f"{name}_admitted": len(admitted),
        f"{name}_per_second": len(took) / elapsed,
        f"{name}_api_calls": calls,
        **figures.delays(admitted, f"{name}_"),
    }


class _Bench:
    def __init__(self, world: World, services: Stack, at_once: int) -> None:
        self._services = services
        self._faults = world.sandbox.backend.faults
        self._at_once = at_once
        self._nats = world.sandbox.nats
        callout = services.services["authcallout"].process
        self._callout = callout.pid if callout else 0

    async def logins(self, clients: Clients, hellos: Sequence[bytes], name: str) -> Figures:
        """Log in with each; the connections stay."""
        self._faults.reset()
        cpu, began = processes.cpu_seconds(self._callout), time.monotonic()
        took = await clients.login(_address(self._services), hellos, self._at_once)
        found = _figures(took, began, self._faults.count(), name)
        used = processes.cpu_seconds(self._callout) - cpu
        return {
            **found,
            f"{name}_most_calls": self._faults.most,
            f"{name}_callout_cpu_ms_per_login": used / len(hellos) * 1000,
        }

    async def mixed(self, clients: Clients, hellos: Sequence[bytes]) -> Figures:
        """Good and wrong ones in turn, none waiting for another; good ones until they are in."""
        self._faults.reset()
        address, began = _address(self._services), time.monotonic()
        took = await clients.login(address, hellos, len(hellos))
        refused = [
            hello for hello, seconds in zip(hellos[::2], took[::2], strict=True) if seconds < 0
        ]
        found: Figures = {
            "mixed_logins": len(hellos),
            "mixed_first_try": len(hellos[::2]) - len(refused),
            "mixed_wrong_admitted": sum(1 for seconds in took[1::2] if seconds >= 0),
        }
        tries = 1
        while refused:
            tries += 1
            again = await clients.login(address, refused, len(refused))
            refused = [h for h, seconds in zip(refused, again, strict=True) if seconds < 0]
        return {
            **found,
            "mixed_admitted": len(hellos[::2]) - len(refused),
            "mixed_tries": tries,
            "mixed_seconds": time.monotonic() - began,
            "mixed_api_calls": self._faults.count(),
            "mixed_most_calls": self._faults.most,
        }

    async def outage(
        self, clients: Clients, hellos: Sequence[bytes], new: Sequence[bytes], api: ApiServer
    ) -> Figures:
        """Stop Arvados' API for as many seconds as there are new tokens, then start it again."""
        address = _address(self._services)
        await clients.login(address, hellos, self._at_once)
        known = again = unknown = 0
        async with crowds.clients() as others:
            await api.stop()
            turns = itertools.cycle(hellos)
            for hello in new:
                second = asyncio.create_task(asyncio.sleep(1))
                took = await others.login(
                    address, [*itertools.islice(turns, _COME_BACK), hello], _COME_BACK + 1
                )
                known += _COME_BACK
                again += sum(seconds >= 0 for seconds in took[:-1])
                unknown += took[-1] >= 0
                await others.close()
                await second
            self._faults.reset()
            await api.start()
            await others.login(address, hellos, self._at_once)
            await asyncio.sleep(_AFTERWARDS)
        return {
            "outage_seconds": len(new),
            "outage_clients": len(hellos),
            "outage_stayed": sum(not moment for moment in await clients.closed()),
            "outage_known": known,
            "outage_known_admitted": again,
            "outage_unknown": len(new),
            "outage_unknown_admitted": unknown,
            "outage_calls_after": self._faults.count(),
            "outage_most_calls_after": self._faults.most,
        }

    async def storm(self, clients: Clients, hellos: Sequence[bytes]) -> Figures:
        """Restart NATS under all of them."""
        filled = await clients.login(_address(self._services), hellos, self._at_once)
        lost = sum(1 for seconds in filled if seconds < 0)
        self._faults.reset()
        await self._nats.kill()
        await self._nats.start()
        began = time.monotonic()
        moments = await clients.again(_address(self._services), self._at_once)
        back = [moment - began for moment in moments]
        return {
            "storm_clients": len(hellos) - lost,
            "storm_back": len(back),
            "storm_seconds": max(back),
            "storm_per_second": len(back) / max(back),
            "storm_first_ms": min(back) * 1000,
            "storm_api_calls": self._faults.count(),
            "storm_most_calls": self._faults.most,
        }


async def _round(
    world: World, services: Stack, known: Sequence[Actor], options: argparse.Namespace
) -> Figures:
    bench = _Bench(world, services, options.at_once)
    hellos = [_hello(actor) for actor in known]
    async with crowds.clients() as clients:
        found = await bench.logins(clients, hellos, "cold")
        found |= await bench.logins(clients, hellos * 2, "cached")
        wrong = [_wrong(actor, number) for number, actor in enumerate(known)]
        found |= await bench.logins(clients, wrong, "wrong")
        await clients.close()
        return found


def _wrong(actor: Actor, number: int) -> bytes:
    return native.login(f"{actor.token[:-6]}wrong{number % 10}")


async def _mixed(world: World, services: Stack, options: argparse.Namespace) -> Figures:
    new = world.users[options.users * options.rounds :]
    hellos = [hello for n, a in enumerate(new) for hello in (_hello(a), _wrong(a, n))]
    async with crowds.clients() as clients:
        found = await _Bench(world, services, options.at_once).mixed(clients, hellos)
        await clients.close()
        return found


async def _outage(world: World, services: Stack, options: argparse.Namespace) -> Figures:
    *users, first = world.users[-_STAY - 1 :]
    new = [_hello(await world.sandbox.cluster.token(first)) for _ in range(options.outage)]
    async with crowds.clients() as clients:
        bench = _Bench(world, services, options.at_once)
        found = await bench.outage(clients, [*map(_hello, users)], new, world.sandbox.api_tls)
        await clients.close()
        return found


async def _storm(world: World, services: Stack, options: argparse.Namespace) -> Figures:
    bench = _Bench(world, services, options.at_once)
    known = itertools.cycle(world.users)
    hellos = [_hello(actor) for actor in itertools.islice(known, options.storm)]
    async with crowds.clients() as clients:
        found = await bench.storm(clients, hellos)
        await clients.close()
        return found


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures; each round of logins has users of its own, whose tokens are new."""
    total = options.users * options.rounds + options.mixed // 2
    async with world(total, 0) as made, stack.beside(made.sandbox) as services:
        rounds = []
        for number in range(options.rounds):
            users = made.users[number * options.users : (number + 1) * options.users]
            rounds.append(await _round(made, services, users, options))
            print(f"round {number}: {rounds[-1]}")
        report: dict[str, Any] = {"at_once": options.at_once}
        report |= figures.medians(rounds)
        report |= figures.medians([await _mixed(made, services, options)])
        report |= figures.medians([await _outage(made, services, options)])
        report |= figures.medians([await _storm(made, services, options)])
        stack.require(services)
    return report


SHORT = {"users": 20, "rounds": 1, "mixed": 40, "outage": 3, "storm": 40}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options: users per round, rounds, mixed logins, outage (s), storm, logins at once."""
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed", type=int, default=2000)
    parser.add_argument("--outage", type=int, default=30)
    parser.add_argument("--storm", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=64)
