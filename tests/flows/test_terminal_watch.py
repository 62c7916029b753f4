# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats whoami` and `watch` as processes, with everything behind them as processes too."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.support.clients.terminal_command import Command, environment, ran, started


@pytest.fixture
async def alice(stack: Stack) -> Actor:
    return await stack.sandbox.cluster.user("alice")


@pytest.fixture
def env(stack: Stack, alice: Actor, tmp_path: Path) -> dict[str, str]:
    return environment(stack, alice, tmp_path)


async def whoami(stack: Stack, actor: Actor, home: Path, **more: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report of `whoami --json` with the actor's token, on NATS too."""
    env = environment(stack, actor, home, **more)
    code, out, said = await ran("whoami", "--json", "--nats", stack.sandbox.nats.url, env=env)
    assert said == ""
    return code, json.loads(out)


def records(command: Command) -> list[dict[str, Any]]:
    """The JSON lines that a command has printed."""
    return [json.loads(line) for line in bytes(command.out).splitlines()]


async def test_whoami_of_a_user(stack: Stack, alice: Actor, tmp_path: Path) -> None:
    """Who it is, and what a native client gets: account, inbox, live subjects."""
    code, found = await whoami(stack, alice, tmp_path)
    assert code == 0
    username = (await stack.sandbox.cluster.reload(alice))["username"]
    assert (found["user_uuid"], found["username"]) == (alice.uuid, username)
    assert (found["token_uuid"], found["scopes"]) == (alice.token_uuid, ["all"])
    nats = found["nats"]
    assert nats["account"] == "USERS"
    assert nats["inbox_prefix"] == f"_INBOX_{alice.uuid}"
    assert f"arvados.live.{alice.uuid}.>" in nats["subscribe"]
    assert nats["subscriptions"] == len(nats["subscribe"])
    code, out, _ = await ran("whoami", env=environment(stack, alice, tmp_path))
    assert code == 0
    assert f"user:     {alice.uuid} {username}\n" in out.decode()
    assert alice.token not in out.decode()


async def test_whoami_of_an_admin(stack: Stack, tmp_path: Path) -> None:
    """An admin reads the streams themselves."""
    admin = await stack.sandbox.cluster.user("boss", admin=True)
    code, found = await whoami(stack, admin, tmp_path)
    assert (code, found["is_admin"], found["nats"]["account"]) == (0, True, "ARVADOS")
    assert "arvados.stored.>" in found["nats"]["subscribe"]


async def test_whoami_of_a_container(stack: Stack, alice: Actor, tmp_path: Path) -> None:
    """A container's own token may write its own log."""
    cluster = stack.sandbox.cluster
    container = await cluster.run(await cluster.container_request("own token", owner=alice))
    actor = await cluster.container_token(container)
    code, found = await whoami(stack, actor, tmp_path)
    assert (code, found["container_uuid"]) == (0, container.uuid)
    assert found["nats"]["publish"] == [f"arvados.logs.{container.uuid}.*"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("unknown", "Arvados does not know the token"),
        ("expired", "Arvados does not know the token"),
        ("logged out", "logging out"),
        ("space", "characters that no Arvados token has"),
    ],
)
async def test_whoami_of_a_token_that_arvados_refuses(
    stack: Stack, alice: Actor, tmp_path: Path, wrong: str, words: str
) -> None:
    """Exit code 1 and the reason."""
    cluster = stack.sandbox.cluster
    token = f"{alice.token[:-3]}xxx"
    match wrong:
        case "expired":
            past = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
            token = (await cluster.token(alice, expires_at=past)).token
        case "logged out":
            other = await cluster.token(alice)
            await cluster.logout(other)
            token = other.token
        case "space":
            token = "a token"
    code, found = await whoami(stack, alice, tmp_path, ARVADOS_API_TOKEN=token)
    assert code == 1
    assert words in found["error"]
    assert "nats" not in found


async def test_whoami_says_when_scopes_cover_nothing(
    stack: Stack, alice: Actor, tmp_path: Path
) -> None:
    """The server says no and nothing else; the reason is found by looking at the token."""
    scoped = await stack.sandbox.cluster.token(alice, scopes=["POST /arvados/v1/collections"])
    code, found = await whoami(stack, scoped, tmp_path)
    assert code == 1
    assert "scopes (POST /arvados/v1/collections) cover no kind" in found["nats_error"]
    env = environment(stack, scoped, tmp_path)
    _, out, _ = await ran("whoami", "--nats", stack.sandbox.nats.url, env=env)
    assert "refused:  the token's scopes" in out.decode()


async def test_whoami_says_when_nobody_decides(stack: Stack, alice: Actor, tmp_path: Path) -> None:
    """With the callout service away a good token is refused, and that is said."""
    await stack.services["authcallout"].stop()
    try:
        code, found = await whoami(stack, alice, tmp_path)
    finally:
        await stack.services["authcallout"].start()
    assert code == 1
    assert "the callout service has not answered" in found["nats_error"]
    assert (await whoami(stack, alice, tmp_path))[0] == 0


async def test_whoami_says_when_there_is_no_nats(
    stack: Stack, alice: Actor, tmp_path: Path
) -> None:
    """An address where nobody listens is no refusal."""
    env = environment(stack, alice, tmp_path)
    code, out, _ = await ran("whoami", "--nats", "nats://127.0.0.1:1", env=env)
    assert code == 1
    assert "cannot be reached" in out.decode()


async def test_watch_object_shows_a_request_to_its_end(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """State by state, with its container in the same record, over a restart of the proxy."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("watched", owner=alice)
    async with started("watch", "object", request.uuid, "--json", env=env) as command:
        await command.shows(b'"Committed"')
        container = await cluster.run(request)
        await command.shows(b'"Running"')
        await stack.services["wsproxy"].stop()
        await cluster.finish(container, exit_code=3)
        await stack.services["wsproxy"].start()
        await command.shows(b'"Final"')
        await command.shows(b'"exit_code":3')
        seen = records(command)
    assert {one["uuid"] for one in seen} == {request.uuid}
    assert len({one["etag"] for one in seen}) == len(seen)
    last = seen[-1]["record"]
    assert (last["state"], last["container"]["state"]) == ("Final", "Complete")


async def test_watch_object_for_a_person(stack: Stack, alice: Actor, env: dict[str, str]) -> None:
    """What is different, a line each; and an end when it may not be read any more."""
    cluster = stack.sandbox.cluster
    project = await cluster.project("watched", owner=alice)
    async with started("watch", "object", project.uuid, env=env) as command:
        await command.shows(b"name: watched")
        async with cluster.unit(alice) as unit:
            await unit.update(await cluster.reload(project), name="ren\x1b[2Jamed")
        await command.shows("name: watched → ren amed".encode())  # a cleared screen's rows stay
        async with cluster.unit(alice) as unit:
            await unit.destroy(await cluster.reload(project))
        assert await command.end() == 1
        assert b"\x1b" not in command.out
        assert project.uuid in command.said


async def test_watch_of_what_may_not_be_read_is_refused(stack: Stack, env: dict[str, str]) -> None:
    """As if it were not there."""
    bob = await stack.sandbox.cluster.user("bob")
    secret = await stack.sandbox.cluster.project("secret", owner=bob)
    for kind in ("object", "project"):
        code, out, said = await ran("watch", kind, secret.uuid, env=env)
        assert (code, out) == (1, b"")
        assert said == (
            f"arvados-nats: {secret.uuid}: there is no such object, or it may not be read\n"
        )


async def test_watch_project_shows_what_happens_below_it(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """At any depth, if asked for."""
    cluster = stack.sandbox.cluster
    top = await cluster.project(owner=alice)
    bottom = await cluster.project(owner=await cluster.project(owner=top, by=alice), by=alice)
    async with started("watch", "project", top.uuid, "--below", "--json", env=env) as command:
        async for _ in _until_shown(command, stack, alice, bottom):
            break
        elsewhere = await cluster.collection(owner=alice)
        last = await cluster.collection(owner=bottom, by=alice)
        await command.shows(last.uuid.encode())
        assert elsewhere.uuid.encode() not in command.out


async def test_watch_project_shows_what_happens_in_it(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """Every change of an object in the project once, over a restart; of no other object."""
    cluster = stack.sandbox.cluster
    project = await cluster.project(owner=alice)
    async with started("watch", "project", project.uuid, "--json", env=env) as command:
        first = await cluster.collection("first", owner=project, by=alice)
        async for _ in _until_shown(command, stack, alice, project):
            break
        await stack.services["wsproxy"].kill()
        elsewhere = await cluster.collection("elsewhere", owner=alice)
        second = await cluster.collection("second", owner=project, by=alice)
        await stack.services["wsproxy"].start()
        await command.shows(second.uuid.encode())
        last = await cluster.collection("last", owner=project, by=alice)
        await command.shows(last.uuid.encode())
        seen = records(command)
    created = [one["object_uuid"] for one in seen if one["event_type"] == "create"]
    assert len(created) == len(set(created))
    assert elsewhere.uuid not in created
    assert [uuid for uuid in created if uuid in (second.uuid, last.uuid)] == [
        second.uuid,
        last.uuid,
    ]
    assert first.uuid != second.uuid


async def _until_shown(
    command: Command, stack: Stack, alice: Actor, project: Any
) -> AsyncIterator[None]:
    """Make collections until the command shows one: then it is live."""
    number = 0
    while not command.out:
        number += 1
        await stack.sandbox.cluster.collection(f"probe {number}", owner=project, by=alice)
        try:
            await command.shows(b"probe", within=0.5)
        except AssertionError:
            assert number < 80
    yield


async def test_watch_events_from_a_cursor(stack: Stack, alice: Actor, env: dict[str, str]) -> None:
    """A script goes on where it stopped, with filters; for a person each event is a line."""
    cluster = stack.sandbox.cluster
    project = await cluster.project("events", owner=alice)
    made = [await cluster.collection(f"c{n}", owner=project, by=alice) for n in range(3)]
    chosen = ("--kind", "collection", "--type", "create", "--owner", project.uuid)
    async with started("watch", "events", *chosen, "--oldest", "--json", env=env) as command:
        await command.shows(made[2].uuid.encode())
        seen = records(command)
    assert [one["object_uuid"] for one in seen] == [one.uuid for one in made]
    async with started("watch", "events", *chosen, "--cursor", seen[0]["cursor"], env=env) as rest:
        await rest.shows(made[2].uuid.encode())
        lines = bytes(rest.out).decode().splitlines()
    assert [line.split()[1:4] for line in lines] == [
        ["create", one.uuid, "collection"] for one in made[1:]
    ]


async def test_watch_permissions_follows_shares(
    stack: Stack, alice: Actor, env: dict[str, str]
) -> None:
    """Gained and lost subjects are told as they change; a dead token ends it with the reason."""
    cluster = stack.sandbox.cluster
    bob = await cluster.user("bob")
    shared = await cluster.project("shared", owner=bob)
    token = await cluster.token(alice)
    env = {**env, "ARVADOS_API_TOKEN": token.token}
    arguments = ("watch", "permissions", "--json", "--nats", stack.sandbox.nats.url)
    async with started(*arguments, env=env) as command:
        await command.shows(b"\n")
        assert f"arvados.live.{alice.uuid}.>" in records(command)[0]["gained"]
        await cluster.share(shared, alice)
        await command.shows(shared.uuid.encode())
        gained = records(command)[-1]
        assert f"arvados.live.{shared.uuid}.>" in gained["gained"]
        assert gained["lost"] == []
        await cluster.unshare(shared, alice)
        await command.shows(f'"lost":["arvados.live.{shared.uuid}.>'.encode())
        await cluster.logout(token)
        assert await command.end() == 1
        assert "Arvados does not know the token" in command.said


async def test_python_of_the_guide_runs(
    stack: Stack, alice: Actor, env: dict[str, str], tmp_path: Path
) -> None:
    """The program in docs/terminal.md, with another address and uuid, prints a log to its end."""
    cluster = stack.sandbox.cluster
    request = await cluster.container_request("guide", owner=alice)
    container = await cluster.run(request)
    cluster.logs.append(container.uuid, "stderr.txt", b"from the guide\n")
    await cluster.finish(container)
    guide = Path(__file__).parents[2] / "docs/terminal.md"
    code = guide.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    program = tmp_path / "program.py"
    program.write_text(
        code.replace("wss://ws.example.com/v1/stream", stack.stream_url).replace(
            "zzzzz-xvhdp-0123456789abcde", request.uuid
        )
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), stdout=asyncio.subprocess.PIPE, env=env
    )
    assert (await process.communicate())[0] == b"from the guide\n"
    assert process.returncode == 0
