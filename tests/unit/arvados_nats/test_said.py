# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""No failure is told with an empty message: neither a log line, nor health, nor a client (O3)."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import asyncpg
import httpx
import msgspec
import nats.errors
import nats.js.errors
import pytest
import websockets.exceptions

from arvados_nats import errors
from arvados_nats.arvados import client as arvados_client
from arvados_nats.arvados.tokens import Token
from arvados_nats.errors import ArvadosNatsError, said
from arvados_nats.nats.errors import translated
from arvados_nats.postgres.errors import translate
from arvados_nats.service.ops import Health

_LIBRARIES = (builtins, asyncpg.exceptions, httpx, msgspec, nats.errors, nats.js.errors)
_MODULES = (*_LIBRARIES, websockets.exceptions, errors)


def _kinds(module: ModuleType) -> Iterator[type[Exception]]:
    for kind in vars(module).values():
        if (
            inspect.isclass(kind)
            and issubclass(kind, Exception)
            and not issubclass(kind, (ExceptionGroup, Warning))
        ):
            yield kind


def _made(kind: type[Exception]) -> Iterator[Exception]:
    """As the libraries make them: without a word, with an empty one, with a cause of none."""
    for arguments in ((), ("",), (" \n",), (TimeoutError(),)):
        try:
            error = kind(*arguments)
            str(error)
        except Exception:
            continue
        yield error
    if issubclass(kind, ArvadosNatsError):
        return  # made by its own constructor only
    error = kind.__new__(kind)
    error.args = ()
    try:
        str(error)
    except Exception:
        return
    yield error


ALL = [kind for module in _MODULES for kind in _kinds(module)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
async def test_every_kind_says_something(kind: type[Exception]) -> None:
    """Through `said`, through health, and through the edge that translates it."""
    for error in _made(kind):
        assert said(error).strip()
        health = Health()
        health.fault("part", error)
        assert health.faults["part"].strip()
        for edge in (translated, translate, arvados_client._translate):
            try:
                with edge():
                    raise error
            except ArvadosNatsError as told:
                assert _words(str(told)), repr(error)
            except Exception as other:
                assert other is error


def _words(text: str) -> str:
    """What is said behind the name of who says it."""
    return text.rpartition(": ")[2].strip() if text.endswith((": ", ":")) else text.strip()


_WORDLESS = frozenset(
    "BaseException Exception HTTPError OSError PostgresError RuntimeError TimeoutError"
    " WebSocketException".split()
)
"""Kinds that libraries raise without a word; whoever catches one of them tells it by `said`."""
ROOT = Path(__file__).parents[3]
CAUGHT = [
    pytest.param(path, handler, id=f"{path.relative_to(ROOT)}:{handler.lineno}")
    for room in ("arvados_nats", "authcallout", "publishers", "wsproxy")
    for path in sorted((ROOT / room).rglob("*.py"))
    for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(handler, ast.ExceptHandler) and handler.name
]


@pytest.mark.parametrize(("path", "handler"), CAUGHT)
def test_what_is_caught_of_a_library_is_told_by_said(
    path: Path, handler: ast.ExceptHandler
) -> None:
    """`str(error)` and `{error}` can be empty where any error of a library can come."""
    caught = set(re.findall(r"\w+", ast.unparse(handler.type))) if handler.type else _WORDLESS
    if not caught & _WORDLESS:
        return
    for node in ast.walk(handler):
        match node:
            case ast.FormattedValue(value=ast.Name(id=name)) if name == handler.name:
                pytest.fail(f"{path}:{node.lineno}: {{{name}}}")
            case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id=name)]):
                assert name != handler.name, f"{path}:{node.lineno}: str({name})"


def test_ours_are_never_empty() -> None:
    """Whatever they are made with."""
    for kind in (errors.Refused, errors.Unavailable, errors.BadInput, errors.ConfigError):
        for message in (None, "", "  \n"):
            assert str(kind(message)).strip()


def test_no_library_recommends_a_page_in_our_texts() -> None:
    """httpx adds one to each status, on a line of its own (V10)."""
    answer = httpx.Response(404, request=httpx.Request("GET", "https://arvados.test/config"))
    with (
        pytest.raises(errors.Unavailable) as raised,
        arvados_client._translate(),
    ):
        answer.raise_for_status()
    cause = raised.value.__cause__
    assert cause is not None
    assert "https://developer.mozilla.org/" in str(cause)
    for told in (said(cause), str(raised.value)):
        assert "404 Not Found" in told
        assert "developer.mozilla.org" not in told


async def test_where_arvados_is_health_alone_is_told() -> None:
    """What a call raises goes on to whoever brought the token, who may be anybody."""
    told: list[str] = []
    url = "http://127.0.0.1:9"
    async with arvados_client.connect(url, ended=lambda _, error: told.append(str(error))) as one:
        with pytest.raises(errors.Unavailable) as raised:
            await one.current_token(Token("a" * 50))
    assert url not in str(raised.value)
    assert url in told[0]
