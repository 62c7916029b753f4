# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where the sandbox's servers run: the decision, and what is asked before it."""

from __future__ import annotations

import pytest

from arvados_nats.errors import ConfigError
from sandbox.servers import backends, nats_server
from sandbox.servers.backends import Backend

AUTO, EMBEDDED, CONTAINERS = Backend.AUTO, Backend.EMBEDDED, Backend.CONTAINERS


@pytest.mark.parametrize(
    ("asked", "programs", "engine", "chosen"),
    [
        (AUTO, True, True, EMBEDDED),
        (AUTO, True, False, EMBEDDED),
        (AUTO, False, True, CONTAINERS),
        (AUTO, False, False, None),
        (EMBEDDED, True, False, EMBEDDED),
        (EMBEDDED, False, True, None),
        (CONTAINERS, True, True, CONTAINERS),
        (CONTAINERS, True, False, None),
    ],
)
def test_the_backend_is_what_was_asked_for_or_what_there_is(
    asked: Backend, programs: bool, engine: bool, chosen: Backend | None
) -> None:
    """Asked for means that or an error; otherwise processes before containers."""
    decide = {"programs": lambda: programs, "engine": lambda: engine}
    if chosen is None:
        with pytest.raises(ConfigError):
            backends.choose(asked, **decide)
    else:
        assert backends.choose(asked, **decide) is chosen


def test_no_engine_is_asked_for_when_the_programs_are_there() -> None:
    """A Docker client that hangs cannot hold up a test run that does not need it."""

    def hangs() -> bool:
        raise AssertionError("asked")

    assert backends.choose(AUTO, programs=lambda: True, engine=hangs) is EMBEDDED


def test_programs_that_are_missing_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed wheels are found; without nats-server there is no embedded backend."""
    assert backends.programs_are_there()

    def missing() -> None:
        raise ConfigError("no nats-server found")

    monkeypatch.setattr(nats_server, "executable", missing)
    assert not backends.programs_are_there()


def test_an_engine_that_is_not_there_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Docker socket simply means no."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert not backends.engine_answers()
