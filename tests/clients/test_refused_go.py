# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What a user may not do is refused to nats.go as it is to the Python client: the same table."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox.stack import Stack
from tests.clients import programs
from tests.support.clients.forbidden import FORBIDDEN_PUBLISHES, FORBIDDEN_SUBSCRIPTIONS


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that tries each line."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed")
    program = tmp_path_factory.mktemp("go") / "attempts"
    try:
        programs.run([go, "build", "-o", str(program), "./attempts"], programs.HERE / "go")
    except programs.Missing as missing:
        pytest.skip(str(missing))
    return program


async def test_the_same_is_refused_to_go(stack: Stack, attempts: Path) -> None:
    """Every forbidden subject, and not what is allowed: that the table can tell the two apart."""
    cluster = stack.sandbox.cluster
    alice, bob = await cluster.user("alice"), await cluster.user("bob")
    refused = [f"sub {subject.format(other=bob.uuid)}" for subject in FORBIDDEN_SUBSCRIPTIONS]
    refused += [f"pub {subject.format(alice=alice.uuid)}" for subject in FORBIDDEN_PUBLISHES]
    refused.append("pub arvados.api.whoami")  # who listens may not ask
    allowed = [f"sub arvados.live.{alice.uuid}.>"]
    done = await asyncio.to_thread(
        subprocess.run,
        [attempts],
        input="\n".join([*refused, *allowed]) + "\n",
        env={**os.environ, "NATS_URL": stack.sandbox.nats.url, "ARVADOS_API_TOKEN": alice.token},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = dict(zip([*refused, *allowed], done.stdout.split(), strict=True))
    assert {line for line, answer in answers.items() if answer == "allowed"} == set(allowed)
