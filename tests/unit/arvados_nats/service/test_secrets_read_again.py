# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Secrets whose files change under a running service: links that are swapped, and broken files."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from arvados_nats.errors import BadInput, ConfigError
from arvados_nats.service import keys, machine_keys
from authcallout.keyring import Keyring
from authcallout.xkey import Envelope
from publishers.settings import Settings

DSN, TOKEN = "ARVADOS_NATS_POSTGRES_DSN", "ARVADOS_NATS_LOG_TOKEN"


def mount(folder: Path, generation: str, contents: dict[str, str]) -> None:
    """As the kubelet shows a Secret: each name a link through `..data`, which is swapped."""
    place = folder / generation
    place.mkdir(parents=True)
    for name, content in contents.items():
        (place / name).write_text(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    new = folder / "..data_tmp"
    new.symlink_to(generation)
    new.replace(folder / "..data")


def test_a_link_that_is_swapped(tmp_path: Path) -> None:
    """The next call has the new ones; what the process was told otherwise stays."""
    mount(tmp_path, "..one", {DSN: "host=one", TOKEN: "first"})
    settings = Settings(secrets_dir=tmp_path, log_calls=7)
    assert (settings.dsn(), settings.admin_token().secret) == ("host=one", "first")
    mount(tmp_path, "..two", {DSN: "host=two", TOKEN: "second"})
    assert (settings.dsn(), settings.admin_token().secret) == ("host=two", "second")
    assert settings.current().log_calls == 7
    assert settings.current() is settings.current()


def test_arvados_own_file(tmp_path: Path) -> None:
    """It is one of the places; one that is broken changes nothing."""
    path = tmp_path / "config.yml"
    path.write_text("Clusters: {zzzzz: {SystemRootToken: first, ManagementToken: m1}}")
    settings = Settings(secrets_dir=tmp_path / "none", arvados_config=path)
    assert settings.management_secret() == "m1"
    path.write_text("Clusters: {zzzzz: {SystemRootToken: second, ManagementToken: m23}}")
    assert (settings.management_secret(), settings.admin_token().secret) == ("m23", "second")
    path.write_text("Clusters: {zzzzz: [")
    assert settings.management_secret() == "m23"


def test_a_seed_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The former one stays, and the log says so without a word of it."""
    keys.ensure(tmp_path)
    living = Settings(keys_dir=tmp_path).living_seed("publisher")
    first = living()
    (tmp_path / "publisher.nk").write_text("half of a se")
    with caplog.at_level(logging.WARNING):
        assert living() == first
    assert "half" not in caplog.text
    (tmp_path / "publisher.nk").unlink()
    assert living() == first
    second = keys.generate(keys.Kind.USER).text
    (tmp_path / "publisher.nk").write_text(second)
    assert living() == second
    with pytest.raises(ConfigError):
        Settings(keys_dir=tmp_path).living_seed("nobody")


def test_each_server_is_answered_with_the_pair_that_it_knows(tmp_path: Path) -> None:
    """Before, in the middle of, and after the replacement of `issuer` and `xkey`."""
    keys.ensure(tmp_path)
    ring, server = Keyring(tmp_path), keys.generate(keys.Kind.CURVE)
    known: dict[str, tuple[str, str]] = {}

    def of(generation: str) -> tuple[bytes, str]:
        ours, _ = known[generation]
        sealed = Envelope(server).seal(b"who?", ours)
        opened, pair = ring.open(sealed, server.public)
        return opened, pair.signer.public

    def remember(generation: str) -> None:
        known[generation] = (
            keys.load_public(tmp_path, "xkey"),
            keys.load_public(tmp_path, "issuer"),
        )

    remember("first")
    assert of("first") == (b"who?", known["first"][1])
    assert set(keys.rotate(tmp_path, ["issuer"])) == {"issuer", "xkey"}
    remember("second")
    for generation in ("first", "second"):
        assert of(generation) == (b"who?", known[generation][1])
    (tmp_path / "issuer.nk").write_text("broken")
    assert of("second") == (b"who?", known["second"][1])
    keys._keep(tmp_path, "issuer", keys.generate(keys.Kind.ACCOUNT))
    keys.forget(tmp_path)
    with pytest.raises(BadInput):
        of("first")


def test_files_of_a_rotation_may_come_one_by_one(tmp_path: Path) -> None:
    """In the order in which they are written no server is ever answered by the wrong issuer."""
    keys.ensure(tmp_path / "new")
    server = keys.generate(keys.Kind.CURVE)
    xkey, issuer = (keys.load_public(tmp_path / "new", name) for name in ("xkey", "issuer"))
    shown = tmp_path / "shown"
    shown.mkdir()
    for name in ("xkey", "issuer"):
        (shown / f"{name}.nk").write_bytes((tmp_path / "new" / f"{name}.nk").read_bytes())
    keys.rotate(tmp_path / "new", ["xkey"])
    ring = Keyring(shown)
    for name in ("xkey.former", "issuer.former", "xkey", "issuer"):
        (shown / f"{name}.nk").write_bytes((tmp_path / "new" / f"{name}.nk").read_bytes())
        sealed = Envelope(server).seal(b"who?", xkey)
        assert ring.open(sealed, server.public)[1].signer.public == issuer, name


def test_machines_keep_their_keys_until_the_former_seed_is_forgotten(tmp_path: Path) -> None:
    keys.ensure(tmp_path)
    ring = Keyring(tmp_path)
    key = machine_keys.make(keys.load(tmp_path, "system-logs"), "node1")
    assert ring.made_for_a_machine(key)
    keys.rotate(tmp_path, ["system-logs"])
    assert ring.made_for_a_machine(key)
    keys.forget(tmp_path)
    assert not ring.made_for_a_machine(key)
