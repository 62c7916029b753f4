# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Arvados' API as the services use it: the one place that knows the HTTP library's exceptions.

Answers map to the kinds of `errors` as docs/facts/arvados-demand.md A10 demands: 401, 403 and 404
are `Refused` (a silent no), 5xx, time-outs and refused connections are `Unavailable` (never a no),
other 4xx are `BadInput`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from arvados_nats import trust
from arvados_nats.arvados.log_folder import Form, Listing, entries
from arvados_nats.arvados.tokens import NOBODY, Token
from arvados_nats.contract import subjects
from arvados_nats.errors import ArvadosNatsError, BadInput, Refused, Unavailable, said

_API = "/arvados/v1"
_LOG = "/log/"
_TIMEOUT = 10.0
_WHOLE_SECONDS = 60.0
"""Until an answer is there to its end, however steadily it comes."""
_MOST_BYTES = 32 * 1024 * 1024
"""Of one answer; what is asked for has far less."""
_CLUSTER_ID = re.compile(r"[a-z0-9]{5}")


class NotFound(Refused):
    """Arvados has no such object, or does not show it to this token."""


class OutOfScope(Refused):
    """The token is good, and its scopes do not cover this."""


@dataclass(frozen=True, slots=True)
class LogRange:
    """Bytes of a log file from `offset` on; `size` is the whole file's, None where not told."""

    offset: int
    data: bytes
    size: int | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Arvados has answered, whole."""

    status: int
    headers: httpx.Headers
    body: bytes

    def object(self, path: str) -> dict[str, Any]:
        """The JSON object that it is; Unavailable if it is none."""
        try:
            decoded = json.loads(self.body)
        except ValueError as error:
            raise Unavailable(f"Arvados answers {path} with no JSON") from error
        if not isinstance(decoded, dict):
            raise Unavailable(f"Arvados answers {path} with no JSON object")
        return decoded


@contextlib.contextmanager
def _translate() -> Iterator[None]:
    try:
        yield
    except httpx.InvalidURL as error:
        raise BadInput(f"Arvados: {said(error)}") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"Arvados: {said(error)}") from error


Ended = Callable[[str, Unavailable | None], None]
"""Called with `public` or `token` and, if Arvados did not answer, with why."""


class Arvados:
    """An HTTP client of one cluster; get one from `connect`. Tokens are given call by call."""

    def __init__(self, client: httpx.AsyncClient, ended: Ended = lambda call, error: None) -> None:
        self._client = client
        self._ended = ended

    @contextlib.contextmanager
    def _calling(self, call: str) -> Iterator[None]:
        """Tell how a call ended: any answer but a failure of the server's own is one."""
        try:
            with _translate():
                yield
        except Unavailable as error:
            # Where that is only health tells: the other text goes to anybody who brings a token.
            url = str(self._client.base_url).removesuffix("/")
            self._ended(call, Unavailable(f"{error} ({url})"))
            raise
        except ArvadosNatsError:
            self._ended(call, None)
            raise
        self._ended(call, None)

    async def get(
        self, token: Token, path: str, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """GET `/arvados/v1/<path>`; parameters that are no text are sent as JSON."""
        answer = await self._send("GET", f"{_API}/{path}", token, params=_query(params))
        return answer.object(path)

    async def _ask(self, method: str, path: str, **options: Any) -> _Answer:
        """The whole answer, or Unavailable where it is longer, or takes longer, than any may."""
        body = bytearray()
        try:
            async with (
                asyncio.timeout(_WHOLE_SECONDS),
                self._client.stream(method, path, **options) as answer,
            ):
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        raise Unavailable(f"Arvados answers {path} with too many bytes")
        except TimeoutError as error:
            raise Unavailable(f"Arvados does not come to the end of {path}") from error
        return _Answer(answer.status_code, answer.headers, bytes(body))

    async def record(
        self,
        token: Token,
        uuid: str,
        *,
        include_trash: bool = False,
        select: list[str] | None = None,
    ) -> dict[str, Any]:
        """One object by uuid, as the token's owner sees it."""
        kind = subjects.kind_of(uuid)
        if kind is None:
            raise BadInput(f"not the uuid of an Arvados object: {uuid!r}")
        params: dict[str, Any] = {"select": select} if select else {}
        if include_trash:
            params["include_trash"] = "true"
        return await self.get(token, f"{kind.path}/{uuid}", params)

    async def current_token(self, token: Token) -> dict[str, Any]:
        """The token's own record: uuid, owner_uuid, scopes, expires_at
        (docs/facts/arvados.md 2)."""
        return await self.get(token, "api_client_authorizations/current")

    async def current_user(self, token: Token) -> dict[str, Any]:
        """The token's user: uuid, is_active, is_admin, is_invited, …"""
        return await self.get(token, "users/current")

    async def current_container(self, token: Token) -> dict[str, Any]:
        """The container whose own token this is; NotFound if it is none's."""
        return await self.get(token, "containers/current")

    async def refuse_nobody(self) -> None:
        """Ask about a token that nobody has, which takes the API server, not its controller alone;
        Unavailable if it does not answer."""
        with contextlib.suppress(Refused):
            await self.current_user(NOBODY)

    async def exported_config(self) -> dict[str, Any]:
        """The part of Arvados' configuration that it shows to everybody, without a token."""
        return await self._public(f"{_API}/config")

    async def login_refusal(self, return_to: str) -> str:
        """Why a browser would not be led back there after a login; empty if it would."""
        with self._calling("public"):
            answer = await self._ask("GET", "/login", params={"return_to": return_to})
        if answer.status < 400 or b"TrustedClients" not in answer.body:
            return ""
        with contextlib.suppress(Unavailable, LookupError, TypeError):
            return str(answer.object("/login")["errors"][0])
        return "it is not one of Login.TrustedClients"

    async def cluster_id(self) -> str:
        """The five characters that this cluster's own uuids begin with."""
        found = (await self.exported_config()).get("ClusterID")
        if not isinstance(found, str) or not _CLUSTER_ID.fullmatch(found):
            raise Unavailable("Arvados does not tell the cluster's id")
        return found

    async def discovery(self) -> dict[str, Any]:
        """The discovery document, shown to everybody: `websocketUrl`, schemas, …"""
        return await self._public("/discovery/v1/apis/arvados/v1/rest")

    async def _public(self, path: str) -> dict[str, Any]:
        with self._calling("public"):
            answer = await self._ask("GET", path)
            if answer.status != httpx.codes.OK:
                told = not_the_controller(str(self._client.base_url), path, answer.status)
                raise Unavailable(told)
            return answer.object(path)

    async def log_sizes(
        self, token: Token, request_uuid: str, container_uuid: str
    ) -> dict[str, int]:
        """Log files of a container and their sizes in bytes now (PROPFIND, docs/facts/arvados.md
        4)."""
        path = _log_path(request_uuid, container_uuid, "")
        answer = await self._send("PROPFIND", path, token, headers={"Depth": "1"})
        return {name: entry.size for name, entry in entries(answer.body).items()}

    async def log_listing(
        self, token: Token, request_uuid: str, container_uuid: str, form: Form
    ) -> Listing:
        """The log folder of a container as Arvados lists it to whom asks in this form."""
        path = _log_path(request_uuid, container_uuid, "").removesuffix("/")
        headers = {} if form.depth is None else {"Depth": form.depth}
        answer = await self._send("PROPFIND", f"{path}{form.slash}", token, headers=headers)
        body, kind = answer.body, answer.headers.get("Content-Type", "")
        return Listing(body, kind, entries(body))

    async def log_range(
        self, token: Token, request_uuid: str, container_uuid: str, file: str, first: int, last: int
    ) -> LogRange:
        """Bytes `first` to `last`, both included, as far as the file goes.

        A file that ends at or before `first` gives no bytes (416); so does one that is not there
        yet (404), with size None.
        """
        path = _log_path(request_uuid, container_uuid, file)
        headers = {"Range": f"bytes={first}-{last}"}
        answer = await self._send("GET", path, token, headers=headers, accept=(404, 416))
        if answer.status == 404:
            return LogRange(first, b"", None)
        size = _content_range_size(answer.headers.get("Content-Range", ""))
        if answer.status == 416:
            return LogRange(first, b"", size)
        if answer.status == 206:
            return LogRange(first, answer.body, size)
        return LogRange(first, answer.body[first : last + 1], len(answer.body))

    async def _send(
        self,
        method: str,
        path: str,
        token: Token,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (),
    ) -> _Answer:
        if not token.usable:
            raise Refused("the token has characters that no Arvados token has")
        call = "log" if _LOG in path else "token"
        with self._calling(call):
            answer = await self._ask(
                method,
                path,
                params=params,
                headers={"Authorization": f"Bearer {token.secret}", **(headers or {})},
            )
            status = answer.status
            # The way to one container's log may be cut while all else works.
            if call == "token" and (status >= 500 or status == 429):
                raise Unavailable(f"Arvados answers {status} to {method} {path}")
        if status < 300 or status in accept:
            return answer
        if status == 404:
            raise NotFound(f"Arvados answers 404 to {method} {path}")
        if status == 403:
            raise OutOfScope(f"Arvados answers {status} to {method} {path}")
        if status == 401:
            raise Refused(f"Arvados answers {status} to {method} {path}")
        if status >= 500 or status == 429:
            raise Unavailable(f"Arvados answers {status} to {method} {path}")
        raise BadInput(f"Arvados answers {status} to {method} {path}")


def release(discovery: Mapping[str, Any]) -> tuple[int, int] | None:
    """Arvados' own release, such as (3, 1); None where it was not installed from a package."""
    found = re.match(r"(\d+)\.(\d+)", str(discovery.get("packageVersion") or ""))
    return (int(found[1]), int(found[2])) if found else None


def not_the_controller(url: str, path: str, status: int) -> str:
    """What is wrong when something other than a controller's own document comes."""
    told = f"{url}{path} is answered with status {status}"
    if status == httpx.codes.NOT_FOUND:
        return f"{told}: is this the controller? Another part of Arvados may stand there"
    return told


def _query(params: Mapping[str, Any] | None) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in (params or {}).items()
    }


def _log_path(request_uuid: str, container_uuid: str, file: str) -> str:
    """BadInput for what is no file of the folder: `..` in it would be a request for anything else,
    by whoever's token reads for all."""
    uuids = subjects.is_uuid(request_uuid) and subjects.is_uuid(container_uuid)
    if not uuids or "/" in file or file in (".", ".."):
        raise BadInput("no file of a container's log has this name")
    return f"{_API}/container_requests/{request_uuid}/log/{container_uuid}/{quote(file)}"


def _content_range_size(header: str) -> int | None:
    size = header.rpartition("/")[2]
    return int(size) if size.isdecimal() else None


@asynccontextmanager
async def connect(
    base_url: str,
    *,
    ca_file: str | None = None,
    insecure: bool = False,
    connections: int = 32,
    keep_idle: float = 5.0,
    ended: Ended = lambda call, error: None,
) -> AsyncIterator[Arvados]:
    """An API client of the cluster at `base_url`, with at most `connections` calls at once.

    A connection that is not used is kept for `keep_idle` seconds.
    """
    verify: ssl.SSLContext | bool = not insecure
    if ca_file and not insecure:
        verify = trust.authority(ca_file)
    limits = httpx.Limits(
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=keep_idle,
    )
    async with httpx.AsyncClient(
        base_url=base_url, verify=verify, limits=limits, timeout=_TIMEOUT
    ) as client:
        yield Arvados(client, ended)
