# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""requirements/ is what pyproject.toml asks for: `make lock` ran after it was changed."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.support.locked import FOLDER, name_of, pinned

PYPROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
IMAGE = [*PROJECT["dependencies"], *EXTRAS["server"], *EXTRAS["otel"]]
WANTED = {
    "image.txt": IMAGE,
    "units.txt": [*IMAGE, *EXTRAS["nats-server"]],
    "build.txt": PYPROJECT["dependency-groups"]["build"],
}


@pytest.mark.parametrize("name", ["image.txt", "units.txt"])
def test_all_that_is_needed_is_locked(name: str) -> None:
    """Also by what is needed: pip would refuse, or without hashes fetch, what is not there."""
    locked = {package: pin.version for package, pin in pinned(name).items()}
    bill = json.loads((FOLDER / "sbom.json").read_bytes())
    names = {part["bom-ref"]: name_of(part["name"]) for part in bill["components"]}
    needs = {item["ref"]: item.get("dependsOn", []) for item in bill["dependencies"]}
    asked = [bill["metadata"]["component"]["bom-ref"]]
    reached: set[str] = set()
    while asked:
        found = set(needs[asked.pop()]) - reached
        reached |= found
        asked += found
    needed = {names[ref] for ref in reached}
    assert needed == set(pinned("image.txt"))
    assert needed - locked.keys() == set()
    image = {package: pin.version for package, pin in pinned("image.txt").items()}
    assert {package: locked[package] for package in image} == image


@pytest.mark.parametrize("name", WANTED)
def test_what_is_locked_is_what_is_asked_for(name: str) -> None:
    """Each requirement by a version that it allows, nothing beside them, all by their hashes."""
    wanted = {name_of(r.name): r for r in map(Requirement, WANTED[name])}
    locked = pinned(name)
    assert {package for package, pin in locked.items() if pin.asked} == set(wanted)
    assert [p for p, r in wanted.items() if locked[p].version not in r.specifier] == []
    assert [package for package, pin in locked.items() if not pin.hashes] == []


def test_the_build_uses_what_is_locked_for_it() -> None:
    """The backend that pip would fetch by itself is the one that the image builds with."""
    asked = {name_of(Requirement(text).name) for text in PYPROJECT["build-system"]["requires"]}
    assert asked <= set(pinned("build.txt"))


def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    """Each package of the image with the version that is installed."""
    bill = json.loads((FOLDER / "sbom.json").read_bytes())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == PROJECT["name"]
    listed = {name_of(part["name"]): part["version"] for part in bill["components"]}
    assert listed == {name: pin.version for name, pin in pinned("image.txt").items()}


def test_nothing_is_fetched_without_its_hash() -> None:
    """By what makes the image, the packages and an installation: any pip that could."""
    makefile = (FOLDER.parent / "Makefile").read_text().replace("$(INSTALL)", "pip install")
    texts = [
        makefile[makefile.index("\ninstall:") :].split("\n\n")[0],
        *((FOLDER.parent / name).read_text() for name in ("Containerfile", ".ci/dist")),
    ]
    lines = "\n".join(texts).replace("\\\n", " ").splitlines()
    calls = [call for line in lines for call in re.findall(r"\bpip\b[^&|;]*", line)]
    fetching = [call for call in calls if re.search(r" (install|wheel|download) ", call)]
    alone = ("--require-hashes", "--no-index", "--no-deps")
    assert len(fetching) == 8
    assert [call for call in fetching if not any(word in call for word in alone)] == []


def test_no_pretended_cluster_is_shipped() -> None:
    """Its tokens and passwords are known to everybody."""
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["arvados_nats", "authcallout", "publishers", "wsproxy"]
    copied = re.findall(r"^COPY (.+)$", (FOLDER.parent / "Containerfile").read_text(), re.MULTILINE)
    last = copied[-2:]  # those of the image itself, behind the last FROM
    assert last == [
        "--from=build /opt/arvados-nats /opt/arvados-nats",
        "requirements/sbom.json /opt/arvados-nats/sbom.json",
    ]
