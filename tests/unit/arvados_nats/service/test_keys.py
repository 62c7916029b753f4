# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""nkey identities: their text form, and the folder they lie in."""

from __future__ import annotations

import stat
from pathlib import Path

import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvados_nats.errors import BadInput, ConfigError
from arvados_nats.service import keys

RAW = bytes(range(32))

# Made with nats-io/nkeys 0.4.17 (Go): the seed bytes 0, 1, … 31 as each kind of key.
VECTORS = {
    keys.Kind.USER: (
        "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y",
        "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK",
    ),
    keys.Kind.ACCOUNT: (
        "SAAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4HYMHI",
        "AAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3QPZV",
    ),
    keys.Kind.CURVE: (
        "SXAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H74KM",
        "XCHUBRNNW2HSKYSK4WZBJ2TWPJXMSTMCTU6XWXQ22G5G6PRBHAUF76G7",
    ),
    keys.Kind.SERVER: (
        "SNAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H2D5U",
        "NAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RSWB",
    ),
}


@pytest.mark.parametrize("kind", VECTORS, ids=lambda kind: kind.name)
def test_keys_are_written_as_the_go_library_writes_them(kind: keys.Kind) -> None:
    """Seed and public key of known bytes are the known texts, and read back to the bytes."""
    seed_text, public = VECTORS[kind]
    seed = keys.from_raw(kind, RAW)
    assert (seed.text, seed.public) == (seed_text, public)
    assert keys.parse_seed(seed_text + "\n") == seed
    assert keys.parse_seed(seed_text).raw == RAW
    assert keys.decode_public(public)[0] is kind


@pytest.mark.parametrize("kind", [keys.Kind.USER, keys.Kind.ACCOUNT], ids=lambda kind: kind.name)
def test_generated_seeds_work_in_the_nkeys_package(kind: keys.Kind) -> None:
    """nats-py signs logins with the nkeys package, which must find the same public key."""
    seed = keys.generate(kind)
    assert nkeys.from_seed(seed.text.encode()).public_key.decode() == seed.public


def test_no_two_generated_keys_are_alike() -> None:
    """Seeds are random."""
    assert len({keys.generate(keys.Kind.CURVE).text for _ in range(50)}) == 50


@pytest.mark.parametrize("show", [repr, str, "{0}".format])
def test_a_seed_never_shows_its_secret(show: object) -> None:
    """What a log line or a traceback would hold is the public key."""
    seed = keys.generate(keys.Kind.USER)
    shown = show(seed)  # type: ignore[operator]
    assert seed.public in shown
    assert seed.text not in shown
    assert seed.raw.hex() not in shown


@given(st.sampled_from(list(VECTORS)), st.integers(0, 57), st.sampled_from("ABCDEFGHQRST234567"))
def test_a_typing_error_in_a_seed_is_noticed(kind: keys.Kind, at: int, letter: str) -> None:
    """Any one wrong letter is refused, and no part of the text is repeated in the error."""
    right = VECTORS[kind][0]
    wrong = right[:at] + letter + right[at + 1 :]
    if wrong == right:
        return
    try:
        assert keys.parse_seed(wrong).raw == RAW  # the last letters carry unused bits
    except BadInput as error:
        assert right[4:20] not in str(error) + repr(error.__cause__)


@pytest.mark.parametrize("text", ["", "SUA", "no base32 !!", "A" * 58, "S" * 200, "ü" * 58])
def test_other_texts_are_no_keys(text: str) -> None:
    """Garbage is `BadInput`, whatever its length."""
    with pytest.raises(BadInput):
        keys.parse_seed(text)
    with pytest.raises(BadInput):
        keys.decode_public(text)


def test_a_seed_is_no_public_key_and_the_other_way_round() -> None:
    """Mixing up the two files of an identity is an error, not a leak."""
    seed, public = VECTORS[keys.Kind.USER]
    with pytest.raises(BadInput):
        keys.decode_public(seed)
    with pytest.raises(BadInput):
        keys.parse_seed(public)


def test_ensure_makes_every_identity_once(tmp_path: Path) -> None:
    """The second run creates nothing and changes nothing."""
    folder = tmp_path / "new" / "keys"
    assert keys.ensure(folder) == list(keys.ROLES)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(before) == {f"{name}.{end}" for name in keys.ALL for end in ("nk", "pub")}
    assert keys.ensure(folder) == []
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_ensure_completes_what_is_missing(tmp_path: Path) -> None:
    """A lost seed is made anew; a lost public key is derived from its seed."""
    keys.ensure(tmp_path)
    publisher, issuer = keys.load(tmp_path, "publisher"), keys.load(tmp_path, "issuer")
    (tmp_path / "publisher.nk").unlink()
    (tmp_path / "issuer.pub").unlink()
    assert keys.ensure(tmp_path) == ["publisher"]
    assert keys.load(tmp_path, "publisher") != publisher
    assert keys.load_public(tmp_path, "publisher") == keys.load(tmp_path, "publisher").public
    assert keys.load_public(tmp_path, "issuer") == issuer.public


def test_seeds_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Nobody else may read a seed or list the folder."""
    folder = tmp_path / "keys"
    keys.ensure(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in keys.ROLES:
        assert stat.S_IMODE((folder / f"{name}.nk").stat().st_mode) == 0o600
    keys.rotate(folder, ["publisher"])
    assert stat.S_IMODE((folder / "publisher.nk").stat().st_mode) == 0o600


def test_rotate_replaces_what_is_named_and_nothing_else(tmp_path: Path) -> None:
    """The new keys are others, of the same kind; `issuer` and `xkey` go together."""
    keys.ensure(tmp_path)
    before = keys.load_all_public(tmp_path)
    made = keys.rotate(tmp_path, ["xkey"])
    after = keys.load_all_public(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"issuer", "xkey"}
    assert keys.load(tmp_path, "xkey") == made["xkey"]
    assert made["xkey"].kind is keys.Kind.CURVE
    assert keys.load(tmp_path, "issuer") == made["issuer"]


def test_a_key_is_replaced_by_the_one_that_was_made_beforehand(tmp_path: Path) -> None:
    """Servers know it already; another next one is there, and the former seed stays."""
    keys.ensure(tmp_path)
    former, following = keys.load(tmp_path, "wsproxy"), keys.load(tmp_path, "wsproxy.next")
    keys.rotate(tmp_path, ["wsproxy"])
    assert keys.load(tmp_path, "wsproxy") == following
    assert keys.load_public(tmp_path, "wsproxy") == following.public
    assert keys.load(tmp_path, "wsproxy.former") == former
    assert keys.load(tmp_path, "wsproxy.next").public not in (former.public, following.public)
    assert stat.S_IMODE((tmp_path / "wsproxy.former.nk").stat().st_mode) == 0o600


def test_an_unknown_identity_is_a_config_error(tmp_path: Path) -> None:
    """The message says which names there are."""
    with pytest.raises(ConfigError, match="callout-service"):
        keys.rotate(tmp_path, ["sudo"])


@pytest.mark.parametrize("end", ["nk", "pub"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("publisher", None),
        ("publisher", b""),
        ("publisher", b"\xff\xfe"),
        ("publisher", b"SUAMAR5BIQ2AZCPYRTLLK7UGWMGSG2GWD2VPIXBNO7ZIB6TZAU4QAEJS2A"),
        ("publisher", "of the issuer"),
    ],
    ids=["missing", "empty", "not text", "checksum", "another kind"],
)
def test_a_file_that_holds_no_fitting_key_is_named(
    tmp_path: Path, end: str, name: str, content: bytes | str | None
) -> None:
    """The operator is told the file and never shown what stands in it."""
    keys.ensure(tmp_path)
    path = tmp_path / f"{name}.{end}"
    path.unlink()
    if isinstance(content, str):
        content = (tmp_path / f"issuer.{end}").read_bytes()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"publisher\\.{end}") as error:
        keys.load(tmp_path, name) if end == "nk" else keys.load_public(tmp_path, name)
    assert "SUAMAR5" not in str(error.value)
