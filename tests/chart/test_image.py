# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The image's own install in a clean prefix: complete, and every command of a container starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from arvados_nats.cli import COMMANDS
from tests.support.chart import image as images
from tests.support.chart.image import CONTAINERFILE, Image
from tests.support.chart.rendered import COMPONENTS, ROOT, Helm
from tests.support.locked import name_of, pinned

SERVICES = (["authcallout"], ["publishers", "run"], ["wsproxy"], ["watch", "system-logs"])
OTHERS = (["keys", "ensure"], ["config", "nats-server"], ["check", "config"], ["logs"], ["demo"])


@pytest.fixture(scope="module")
def image() -> Image:
    """As `make` has installed it."""
    found = images.find()
    if found is None:
        pytest.skip(images.ABSENT)
    return found


def test_the_linter_has_nothing_to_say() -> None:
    """hadolint, with all its rules."""
    linter = Path(sys.executable).parent / "hadolint"
    if not linter.exists():
        pytest.skip("no hadolint for this kind of machine")
    done = subprocess.run([linter, CONTAINERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_says_its_version(image: Image) -> None:
    """That of the distribution it was built of."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = (line for line in project.splitlines() if line.startswith("version = "))
    assert version.split('"')[1] in image.run(["--version"]).stdout


@pytest.mark.parametrize("words", [*SERVICES, *OTHERS], ids=" ".join)
def test_every_command_starts(image: Image, words: list[str]) -> None:
    """With what the distribution itself needs, and no package more."""
    done = image.run([*words, "--help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: arvados-nats {' '.join(words)}")


def test_its_help_lists_every_command(image: Image) -> None:
    """What the image does when it is told nothing; a command that is left out says so."""
    done = image.run(["--help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in COMMANDS if f"\n  {name} " not in done.stdout] == []
    refused = image.run(["demo", "--check"])
    assert refused.returncode == 2
    assert refused.stderr == (
        "arvados-nats: demo: Not installed here: it is in the source tree: make demo\n"
    )


def test_the_arguments_of_the_chart_are_commands(image: Image, helm: Helm) -> None:
    """Of each of its pods."""
    rendered = helm.template("minimal")
    for name in COMPONENTS:
        words = rendered.pod(name).containers[0]["args"]
        assert image.run([*words, "--help"]).returncode == 0, words


def test_no_file_is_left_out(image: Image) -> None:
    """Pages, schemas and samples are there, as the tree has them, and nothing of the tests."""
    (packages,) = image.prefix.glob("lib/python3*/site-packages")
    kept = (ROOT / ".containerignore").read_text(encoding="utf-8").split()
    ours = [
        path.relative_to(ROOT)
        for line in kept
        # The page is built into wsproxy/static, requirements/ says what is installed.
        if line.startswith("!") and line not in ("!web", "!requirements")
        for path in (ROOT / line[1:]).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    ]
    assert len(ours) > 100
    differing = [
        name for name in ours if (packages / name).read_bytes() != (ROOT / name).read_bytes()
    ]
    assert differing == []
    assert not (packages / "tests").exists()


def test_it_holds_what_was_locked(image: Image) -> None:
    """And not what was newest on the day."""
    (packages,) = image.prefix.glob("lib/python3*/site-packages")
    found = {
        name_of(path.name.removesuffix(".dist-info").rpartition("-")[0]): path.name
        for path in packages.glob("*.dist-info")
    }
    locked = pinned("image.txt")
    assert sorted(set(found) - {"arvados-nats"}) == sorted(locked)
    assert [name for name in locked if f"-{locked[name].version}.dist" not in found[name]] == []


def test_telemetry_is_included(image: Image) -> None:
    """The extra that a site switches on by a setting alone."""
    done = subprocess.run(
        [image.prefix / "bin" / "python", "-c", "import opentelemetry.sdk.trace"],
        cwd="/", env=image.environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0
