# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats keys` and `arvados-nats config`, and what a real server makes of their outcome."""

from __future__ import annotations

import base64
import json
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from arvados_nats.cli import main
from arvados_nats.service import keys
from sandbox.servers import nats_server


def run(*arguments: object) -> Result:
    """The command as an operator gives it."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def seeds(folder: Path) -> list[str]:
    """Every secret of a folder."""
    return [keys.load(folder, name).text for name in keys.ROLES]


@pytest.mark.parametrize(
    "command", [["generate"], ["ensure"], ["rotate", "publisher", "issuer", "xkey"]], ids=str
)
def test_public_keys_are_shown_and_seeds_are_not(tmp_path: Path, command: list[str]) -> None:
    """The operator sees what to write into other configuration, never a secret."""
    folder = tmp_path / "keys"
    if command[0] == "rotate":
        keys.ensure(folder)
    result = run("keys", command[0], folder, *command[1:])
    assert result.exit_code == 0, result.output
    assert all(public in result.output for public in keys.load_all_public(folder).values())
    assert not any(seed in result.output for seed in seeds(folder))


def test_generate_refuses_to_overwrite(tmp_path: Path) -> None:
    """Keys that are in use are safe from a second `generate`; the message tells the way out."""
    run("keys", "generate", tmp_path)
    before = seeds(tmp_path)
    result = run("keys", "generate", tmp_path)
    assert result.exit_code == 2
    assert "keys rotate" in result.output
    assert seeds(tmp_path) == before


def test_rotate_refuses_unknown_names_and_empty_folders(tmp_path: Path) -> None:
    """A typing error makes no new key files."""
    assert run("keys", "rotate", tmp_path, "publishers").exit_code == 2
    assert run("keys", "rotate", tmp_path, "publisher").exit_code == 2
    assert run("keys", "rotate", tmp_path).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_secret_manifest_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    """The manifest holds every file of the folder layout, and goes to a file."""
    result = run("keys", "generate", "-o", "yaml", "--namespace", "arvados", tmp_path)
    path = tmp_path / "arvados-nats-nkeys.yaml"
    manifest = yaml.safe_load(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (manifest["kind"], manifest["metadata"]) == (
        "Secret",
        {"name": "arvados-nats-nkeys", "namespace": "arvados"},
    )
    for name in keys.ROLES:
        seed = keys.parse_seed(manifest["stringData"][f"{name}.nk"])
        assert manifest["stringData"][f"{name}.pub"] == seed.public
        assert seed.text not in result.output
    assert run("keys", "generate", "-o", "yaml", tmp_path).exit_code == 2


def test_a_manifest_is_printed_when_asked(tmp_path: Path) -> None:
    """`--show-seeds` is the one way to print a seed, for a pipe into kubectl."""
    result = run("keys", "generate", "-o", "yaml", "--show-seeds", "--name", "mine", tmp_path)
    manifest = yaml.safe_load(result.output)
    assert manifest["metadata"] == {"name": "mine"}
    assert keys.parse_seed(manifest["stringData"]["issuer.nk"]).kind is keys.Kind.ACCOUNT
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--cluster", "arvados", "--route", "127.0.0.1:6223", "--route", "127.0.0.1:6224"],
        ["--websocket", "127.0.0.1:8080", "--origin", "https://workbench.example"],
    ],
    ids=["single", "cluster", "websocket"],
)
def test_the_printed_configuration_passes_the_servers_own_check(
    tmp_path: Path, options: list[str]
) -> None:
    """`nats-server -t` accepts it, and of seeds it names none but the password of routes."""
    folder = tmp_path / "keys"
    keys.ensure(folder)
    store = ["--store-dir", tmp_path / "store", "--store", "1GB"]
    result = run("config", "nats-server", "--keys", folder, *store, *options)
    assert result.exit_code == 0, result.output
    told = [seed for seed in seeds(folder) if seed in result.output]
    assert told == ([keys.load(folder, "routes").text] if "--cluster" in options else [])
    conf = tmp_path / "nats.conf"
    conf.write_text(result.stdout)
    checked = subprocess.run(
        [nats_server.executable(), "-t", "-c", conf], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert re.search("is valid", checked.stderr)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--route", "127.0.0.1:6223"], "--cluster"),
        (["--origin", "https://workbench.example"], "--websocket"),
        (["--store", "1TB"], "20GB"),
        (["--keys", "/dev/null/keys"], "does not exist"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: list[str], told: str) -> None:
    """Exit code 2 and a sentence that says what is missing."""
    keys.ensure(tmp_path)
    result = run("config", "nats-server", "--keys", tmp_path, *options)
    assert result.exit_code == 2
    assert told in result.output


def test_tls_files_are_named_for_each_listener(tmp_path: Path) -> None:
    """Clients and WebSocket share a certificate; members of the cluster must show theirs."""
    keys.ensure(tmp_path)
    cluster = ["--cluster", "arvados", "--cluster-tls", "route.crt", "route.key", "ca.crt"]
    listeners = ["--tls", "server.crt", "server.key", "--websocket", "0.0.0.0:8443"]
    result = run("config", "nats-server", "--keys", tmp_path, *listeners, *cluster)
    assert result.output.count('cert_file: "server.crt"') == 2
    assert result.output.count('cert_file: "route.crt"') == 1
    assert result.output.count("verify: true") == 1


@pytest.mark.parametrize(
    ("options", "listen", "told"),
    [
        ([], "127.0.0.1:4222", ""),
        (["--tls", "server.crt", "server.key"], "0.0.0.0:4222", ""),
        (["--listen", "0.0.0.0:4222"], "0.0.0.0:4222", "has no TLS"),
        (["--cluster", "a"], "127.0.0.1:4222", "password of the routes"),
        (["--cluster", "a", "--cluster-tls", "a", "b", "c"], "127.0.0.1:4222", ""),
    ],
    ids=str,
)
def test_what_is_in_the_clear_is_told(
    tmp_path: Path, options: list[str], listen: str, told: str
) -> None:
    """Without TLS it listens on this machine alone, unless it is told otherwise."""
    keys.ensure(tmp_path)
    result = run("config", "nats-server", "--keys", tmp_path, "--monitor", "none", *options)
    assert f'listen: "{listen}"\n' in result.stdout
    assert told in result.stderr
    assert told or "TLS" not in result.stderr


def test_without_keys_the_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """An empty keys folder is a configuration error."""
    result = run("config", "nats-server", "--keys", tmp_path)
    assert result.exit_code == 2
    assert "callout.pub" in result.output


def test_keys_of_a_secret_are_replaced_in_a_pipe(tmp_path: Path) -> None:
    """As `kubectl get` gives it and `kubectl replace` takes it; what is not ours stays."""
    keys.ensure(tmp_path)
    entries = {path.name: path.read_bytes() for path in tmp_path.iterdir()} | {"note": b"theirs"}
    data = {name: base64.b64encode(content).decode() for name, content in entries.items()}
    secret = {"kind": "Secret", "metadata": {"resourceVersion": "7"}, "data": data}
    done = CliRunner().invoke(main, ["keys", "rotate", "-", "publisher"], input=json.dumps(secret))
    assert done.exit_code == 0, done.output
    new = json.loads(done.stdout)
    left = {name: base64.b64decode(value).strip() for name, value in new["data"].items()}
    assert new["metadata"] == {"resourceVersion": "7"}
    assert left["publisher.nk"] == entries["publisher.next.nk"].strip()
    assert left["publisher.former.nk"] == entries["publisher.nk"].strip()
    assert (left["note"], left["sys.nk"]) == (b"theirs", entries["sys.nk"].strip())
    done = CliRunner().invoke(main, ["keys", "forget", "-"], input=done.stdout)
    assert "publisher.former.nk" not in json.loads(done.stdout)["data"]
    done = CliRunner().invoke(main, ["keys", "rotate", "-", "publisher"], input="{}")
    assert done.exit_code == 2
