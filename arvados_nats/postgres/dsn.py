# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How a site writes down where its PostgreSQL is.

Pure. Arvados' own `PostgreSQL.Connection` and most sites' tools use libpq's `host=… dbname=…` form;
asyncpg reads URLs only. An error never shows any part of the string, which holds a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode

from arvados_nats import urls
from arvados_nats.errors import ConfigError

_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)")
_ESCAPE = re.compile(r"\\(.)")
_URL = re.compile(r"(\w+://)(?:([^/?#]*)@)?([^/?#@]*)([^?#]*)\??([^#]*)")
_HOST = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:\d*)?")
_NO_HOST = (
    "postgres_dsn: no host stands where a URL has it; in a URL write / ? # [ ] @ : % of a password"
    " as %XX, or say it as libpq does: host=… dbname=… user=… password='…'"
)
_CLIENT_ONLY = frozenset(
    "connect_timeout keepalives keepalives_idle keepalives_interval keepalives_count"
    " tcp_user_timeout client_encoding fallback_application_name gssencmode channel_binding"
    " sslcompression requirepeer load_balance_hosts".split()
)
"""Options of libpq that asyncpg would hand to the server, which does not know them."""
_SYSTEM = "system"
_VERIFYING = ("verify-ca", "verify-full")


def to_url(dsn: str) -> str:
    """The URL for a URL or a libpq connection string."""
    if dsn.startswith(("postgresql://", "postgres://")):
        place = re.split("[/?#]", dsn.partition("://")[2], maxsplit=1)[0]
        login, _, hosts = place.rpartition("@")
        if not all(map(_HOST.fullmatch, hosts.split(","))) or set(login) & {"[", "]"}:
            raise ConfigError(_NO_HOST)
        return dsn
    options = dict(_pairs(dsn))
    if not options:
        raise ConfigError("postgres_dsn: set it to where Arvados' PostgreSQL is")
    address = options.pop("hostaddr", "")
    return "postgresql://?" + urlencode({"host": address, **options} if address else options)


def options(url: str) -> dict[str, str]:
    """What a URL says by libpq's names, wherever in it that stands."""
    parts = urls.split(url)
    found = dict(parse_qsl(parts.query))
    login, _, found_hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    said = {"user": user, "password": password, "host": found_hosts, "dbname": parts.path[1:]}
    return {**{name: unquote(text) for name, text in said.items() if text}, **found}


def as_role(url: str, role: str, password: str) -> str:
    """The same database for another role."""
    parts = urls.split(url)
    asked = {k: v for k, v in parse_qsl(parts.query) if k not in ("user", "password")}
    hosts = parts.netloc.rpartition("@")[2]
    if hosts:
        hosts = f"{role}:{quote(password, safe='')}@{hosts}"
    else:
        asked |= {"user": role, "password": password}
    return f"{parts.scheme}://{hosts}{parts.path}" + (f"?{urlencode(asked)}" if asked else "")


def one_by_one(url: str) -> list[str]:
    """A URL for each host that `url` names: whoever tries them gives each a time of its own.

    Several hosts are a primary and its standbys, so unless it says otherwise the primary is meant.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return [url]
    scheme, login, authority, path, query = match.groups()
    options = dict(parse_qsl(query))
    hosts = (authority or options.get("host", "")).split(",")
    if len(hosts) < 2:
        return [url]
    ports = [] if authority else options.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    options.setdefault("target_session_attrs", "primary")
    at = f"{login}@" if login is not None else ""
    found = []
    for number, host in enumerate(hosts):
        if authority:
            found.append(f"{scheme}{at}{host}{path}?{urlencode(options)}")
        else:
            own = {**options, "host": host, **({"port": ports[number]} if ports[number:] else {})}
            found.append(f"{scheme}{at}{path}?{urlencode(own)}")
    return found


@dataclass(frozen=True, slots=True)
class SystemTrust:
    """The server's certificate is to be held to the authorities that this machine trusts."""

    host_name: bool
    certificate: str | None = None
    key: str | None = None


def system_trust(url: str, own_authorities: Callable[[], bool]) -> SystemTrust | None:
    """What `sslmode` asks for where no file of authorities is named; None where one is, or none
    is needed.

    libpq then reads ~/.postgresql/root.crt (`own_authorities`: whether there is one), which a
    service has not: it runs as a user without a home.
    """
    options = dict(parse_qsl(url.partition("?")[2]))
    named, mode = options.get("sslrootcert", ""), options.get("sslmode", "")
    if named == _SYSTEM:
        mode = "verify-full"  # libpq takes no less with it
    elif named or mode not in _VERIFYING or own_authorities():
        return None
    return SystemTrust(
        host_name=mode == "verify-full",
        certificate=options.get("sslcert"),
        key=options.get("sslkey"),
    )


def _pairs(dsn: str) -> list[tuple[str, str]]:
    pairs, position = [], 0
    text = dsn.rstrip()
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise ConfigError("postgres_dsn: neither a URL nor a libpq connection string")
        position = match.end()
        key, quoted, plain = match.groups()
        value = _ESCAPE.sub(r"\1", plain if quoted is None else quoted)
        if value and key not in _CLIENT_ONLY:
            pairs.append((key, value))
    return pairs
