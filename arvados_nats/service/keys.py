# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The nkey identities of a cluster: what they are called, how they are written, where they lie.

Every static NATS identity is an nkey, so that nats.conf holds public keys only (docs/facts/helm.md
2). A folder holds one pair of files for each name in `ROLES`: `<name>.nk`, the seed, readable by
its owner alone, and `<name>.pub`. A service mounts only the seeds it needs.

The text form is that of nats-io/nkeys: a prefix byte, 32 bytes and a little-endian CRC16, in
base32 without padding. It is written here because the nkeys package knows no curve keys, which
the encryption of auth callouts needs (docs/facts/nats-callout.md 1.4).
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from arvados_nats.errors import BadInput, ConfigError

_SEED = 18 << 3
_CHECKSUM_BYTES = 2
KEY_BYTES = 32


class Kind(Enum):
    """What a key is for; the value is the prefix byte, whose first base32 letter is the name's."""

    ACCOUNT = 0
    USER = 20 << 3
    CURVE = 23 << 3
    SERVER = 13 << 3


ROLES: Mapping[str, Kind] = {
    "callout": Kind.USER,
    "callout-service": Kind.USER,
    "publisher": Kind.USER,
    "wsproxy": Kind.USER,
    "system-logs": Kind.USER,
    "sys": Kind.USER,
    "issuer": Kind.ACCOUNT,
    "xkey": Kind.CURVE,
    "routes": Kind.USER,
}
"""Every identity: the callout service in account AUTH and again in ARVADOS, the publishers and
wsproxy in ARVADOS, the one that cuts connections in SYS; the key that signs user JWTs, and the key
that the servers seal callout requests to. Two seeds are no logins: of `system-logs` the keys of
machines are made (`machine_keys`), and `routes` is the password that the servers of a cluster show
each other."""


NEXT, FORMER = ".next", ".former"
BESIDE = (NEXT, FORMER)
AHEAD = ("callout", "callout-service", "publisher", "wsproxy", "sys")
"""Identities whose next key is made beforehand: the servers know it already when it is needed, so
that nobody is refused while keys are replaced. The others are told to servers and services at once,
or, like `system-logs`, are what further keys are made of."""
_PAIR = {"issuer", "xkey"}
_ENSURE = "what is missing is made by: arvados-nats keys ensure"
_NEXT = tuple(f"{name}{NEXT}" for name in AHEAD)
ALL = (*ROLES, *_NEXT)


@dataclass(frozen=True, slots=True)
class Seed:
    """A secret key. Its repr shows the public key; `text` and `raw` are the secret."""

    text: str = field(repr=False)
    kind: Kind = field(repr=False)
    public: str

    @property
    def raw(self) -> bytes:
        """The 32 secret bytes, as PyNaCl takes them."""
        return _unpack(self.text)[2:]


def generate(kind: Kind) -> Seed:
    """A new random key."""
    return from_raw(kind, secrets.token_bytes(KEY_BYTES))


def from_raw(kind: Kind, raw: bytes) -> Seed:
    """The key with these 32 secret bytes."""
    first = _SEED | kind.value >> 5
    second = (kind.value & 31) << 3
    public = bytes(
        PrivateKey(raw).public_key if kind is Kind.CURVE else SigningKey(raw).verify_key,
    )
    return Seed(
        text=_pack(bytes((first, second)) + raw), kind=kind, public=encode_public(kind, public)
    )


def parse_seed(text: str) -> Seed:
    """The key of a seed's text, such as `SUA…` or `SXA…`; `BadInput` names no part of it."""
    data = _unpack(text.strip())
    if len(data) != KEY_BYTES + 2 or data[0] & 0b11111000 != _SEED:
        raise BadInput("the text is not an nkey seed")
    return from_raw(_kind((data[0] & 7) << 5 | data[1] >> 3), data[2:])


def encode_public(kind: Kind, raw: bytes) -> str:
    """The text of a public key, such as `U…`, `A…`, `X…`."""
    return _pack(bytes((kind.value,)) + raw)


def decode_public(text: str) -> tuple[Kind, bytes]:
    """The kind and the 32 bytes of a public key's text; `BadInput` when it is none."""
    data = _unpack(text.strip())
    if len(data) != KEY_BYTES + 1:
        raise BadInput("the text is not an nkey public key")
    return _kind(data[0]), data[1:]


def _kind(prefix: int) -> Kind:
    try:
        return Kind(prefix)
    except ValueError as error:
        raise BadInput("the nkey is of a kind that is not used here") from error


def _pack(data: bytes) -> str:
    checksum = binascii.crc_hqx(data, 0).to_bytes(_CHECKSUM_BYTES, "little")
    return base64.b32encode(data + checksum).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    try:
        data = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise BadInput("the nkey is not base32 text") from error
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(data) < KEY_BYTES or binascii.crc_hqx(body, 0).to_bytes(2, "little") != checksum:
        raise BadInput("the nkey's checksum does not fit")
    return body


def load(folder: Path, name: str) -> Seed:
    """The seed `name` of a folder; `ConfigError` names the file and what is wrong."""
    path = folder / f"{name}.nk"
    try:
        seed = parse_seed(path.read_text(encoding="ascii"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is not there; {_ENSURE} {folder}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error.__class__.__name__}") from error
    except BadInput as error:
        raise ConfigError(f"{path}: {error}") from error
    if seed.kind is not ROLES.get(name.partition(".")[0], seed.kind):
        raise ConfigError(f"{path} holds a key of another kind than {name} needs")
    return seed


def load_public(folder: Path, name: str) -> str:
    """The public key `name` of a folder, from `<name>.pub`: no seed is opened."""
    path = folder / f"{name}.pub"
    try:
        text = path.read_text(encoding="ascii").strip()
        kind, _ = decode_public(text)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is not there; {_ENSURE} {folder}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error.__class__.__name__}") from error
    except BadInput as error:
        raise ConfigError(f"{path}: {error}") from error
    if kind is not ROLES.get(name.removesuffix(NEXT), kind):
        raise ConfigError(f"{path} holds a key of another kind than {name} needs")
    return text


def load_all_public(folder: Path) -> dict[str, str]:
    """Role -> public key, of every role, and of every next key that there is."""
    return {
        name: load_public(folder, name)
        for name in ALL
        if name in ROLES or (folder / f"{name}.pub").exists()
    }


def missing(folder: Path) -> dict[str, Seed]:
    """New seeds for the roles that have none in a folder; nothing is written."""
    return {name: generate(_role(name)) for name in ALL if not (folder / f"{name}.nk").exists()}


def ensure(folder: Path) -> list[str]:
    """Create what is missing, overwrite nothing; the names of the roles whose seed is new."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = missing(folder)
    for name, seed in made.items():
        _keep(folder, name, seed)
    for name in ALL:
        if not (folder / f"{name}.pub").exists():
            _write(folder / f"{name}.pub", load(folder, name).public, 0o644)
    return [name for name in made if name in ROLES]


def rotate(folder: Path, names: Iterable[str]) -> dict[str, Seed]:
    """Replace these identities. Each file changes in one step or not at all.

    By their next key where there is one, which the servers know; another next one is made. The
    former seed stays beside it: what was sealed with it can still be read, and servers that know no
    other are still answered. `issuer` and `xkey` go together: a server shows by the one which of
    the other it believes.
    """
    seeds = {name: _following(folder, name) for name in _ordered(set(names))}
    for name in seeds:
        if name != "routes" and (folder / f"{name}.nk").exists():
            _write(folder / f"{name}{FORMER}.nk", load(folder, name).text, 0o600)
    for name, seed in seeds.items():
        if name in AHEAD:
            _keep(folder, f"{name}{NEXT}", generate(_role(name)))
        _keep(folder, name, seed)
    return seeds


def _ordered(names: set[str]) -> list[str]:
    """`xkey` before `issuer`: who reads in between opens with the former pair."""
    return sorted(names | _PAIR if names & _PAIR else names, reverse=True)


def forget(folder: Path) -> list[str]:
    """Delete the former seeds; their names."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder of keys")
    gone = sorted(folder.glob(f"*{FORMER}.nk"))
    for path in gone:
        path.unlink()
    return [path.name.removesuffix(".nk") for path in gone]


def _following(folder: Path, name: str) -> Seed:
    kind = _role(name)
    there = name in AHEAD and (folder / f"{name}{NEXT}.nk").exists()
    return load(folder, f"{name}{NEXT}") if there else generate(kind)


def _keep(folder: Path, name: str, seed: Seed) -> None:
    _write(folder / f"{name}.nk", seed.text, 0o600)
    _write(folder / f"{name}.pub", seed.public, 0o644)


def _role(name: str) -> Kind:
    role = name.removesuffix(NEXT)
    if role not in ROLES:
        raise ConfigError(f"{name} is no identity; there are {', '.join(ROLES)}")
    return ROLES[role]


def _write(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
