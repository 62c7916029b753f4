# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The command group `arvados-nats keys`: make, complete and replace the nkey identities.

Seeds go to files that their owner alone can read; they are printed only with `--show-seeds`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import yaml

from arvados_nats.errors import ConfigError
from arvados_nats.service import keys as identities

_Folder = click.Path(file_okay=False, path_type=Path)
_FolderOrSecret = click.Path(file_okay=False, allow_dash=True, path_type=Path)
_PIPE = Path("-")

DEFAULT_FOLDER = Path("/etc/arvados-nats/keys")


@click.group()
def keys() -> None:
    """Make, complete and replace the keys that our services log in to NATS with."""


@keys.command()
@click.argument("folder", type=_Folder, default=DEFAULT_FOLDER)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["files", "yaml"]),
    default="files",
    help="Files in FOLDER, or the manifest of a Kubernetes Secret in FOLDER/<name>.yaml.",
)
@click.option("--name", default="arvados-nats-nkeys", help="Name of the Secret.", show_default=True)
@click.option("--namespace", help="Namespace of the Secret.")
@click.option("--show-seeds", is_flag=True, help="Print the manifest, seeds and all, instead.")
def generate(folder: Path, output: str, name: str, namespace: str | None, show_seeds: bool) -> None:
    """Make a new set of keys.

    Refuses where there are keys already: complete those with `ensure`, replace them with `rotate`.
    Prints public keys only, unless told otherwise:

    arvados-nats keys generate -o yaml --show-seeds | kubectl create -f -
    """
    if output == "files":
        _refuse_to_overwrite(folder, (f"{role}.nk" for role in identities.ROLES))
        _tell(folder, identities.ensure(folder), "created")
        return
    manifest = _manifest(name, namespace)
    if show_seeds:
        click.echo(manifest, nl=False)
        return
    _refuse_to_overwrite(folder, [f"{name}.yaml"])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(manifest)
    click.echo(f"created {path}")


@keys.command()
@click.argument("folder", type=_Folder, default=DEFAULT_FOLDER)
@click.option("--secret", help="A Secret of the Kubernetes cluster we run in, not FOLDER.")
@click.option("--namespace", help="Namespace of the Secret, if not the one we run in.")
def ensure(folder: Path, secret: str | None, namespace: str | None) -> None:
    """Create the keys that are missing in FOLDER; never change one that is there."""
    if secret is None:
        _tell(folder, identities.ensure(folder), "created")
        return
    from arvados_nats.admin import keys_cluster

    created = keys_cluster.ensure(keys_cluster.of_this_pod(namespace), secret)
    click.echo("\n".join(f"created {name}" for name in created) or "nothing was missing")


@keys.command()
@click.argument("host")
@click.argument("folder", type=_Folder, default=DEFAULT_FOLDER)
def machine(host: str, folder: Path) -> None:
    """Print the key with which the machine HOST sends its system log.

    Made from the seed `system-logs` in FOLDER, which stays where it is: keep what is printed as
    system-logs.nk on that machine alone. To take all such keys away, `rotate` that seed.
    """
    from arvados_nats.service import machine_keys

    click.echo(machine_keys.make(identities.load(folder, "system-logs"), host))


@keys.command()
@click.argument("folder", type=_FolderOrSecret)
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(identities.ROLES)))
def rotate(folder: Path, names: tuple[str, ...]) -> None:
    """Replace the keys NAMES in FOLDER by new ones; FOLDER may be - for a Secret in a pipe:

    kubectl get secret NAME -o json | arvados-nats keys rotate - NAMES | kubectl replace -f -

    The services take up what their files say by themselves, on machines of your own after
    `systemctl reload`, and go on knowing the former keys until `keys forget`. Then print nats.conf
    again, which from the servers' next restart on shuts the former keys out. issuer and xkey are
    replaced together. Connections that exist stay.
    """
    with _opened(folder) as place:
        for name in names:
            identities.load(place, name)
        replaced = identities.rotate(place, names)
        _tell(place, replaced, "replaced", err=place != folder)


@keys.command()
@click.argument("folder", type=_FolderOrSecret, default=DEFAULT_FOLDER)
def forget(folder: Path) -> None:
    """Delete the former seeds in FOLDER, when no server and no cursor is of them any more.

    FOLDER may be - for a Secret in a pipe, as with `keys rotate`.
    """
    with _opened(folder) as place:
        gone = identities.forget(place)
        click.echo("\n".join(gone) or "there were none", err=place != folder)


@keys.command()
@click.argument("unit")
@click.option("--units", multiple=True, type=_Folder, help="Folders of units, if not systemd's.")
@click.option("--credentials", type=_Folder, help="Instead of /run/credentials.")
def show(unit: str, units: tuple[Path, ...], credentials: Path | None) -> None:
    """Show a running UNIT its secrets as they are now; what `systemctl reload` does of ours."""
    from arvados_nats.admin import credentials as shown
    from arvados_nats.admin import unit_files

    place = credentials or unit_files.CREDENTIALS
    changed = shown.show(unit, units or unit_files.FOLDERS, place)
    click.echo("\n".join(f"changed {name}" for name in changed) or "nothing has changed")


@contextmanager
def _opened(folder: Path) -> Iterator[Path]:
    """The folder, or one with what the Secret in standard input holds, which is then printed."""
    if folder != _PIPE:
        yield folder
        return
    try:
        secret = json.load(sys.stdin)
        entries = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("standard input is not the JSON of a Secret") from error
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        for name, content in entries.items():
            if name.endswith((".nk", ".pub")) and "/" not in name:
                (place / name).write_bytes(content)
        theirs = {name: entries[name] for name in entries if not (place / name).exists()}
        yield place
        left = {path.name: path.read_bytes() for path in sorted(place.iterdir())} | theirs
    secret["data"] = {name: base64.b64encode(left[name]).decode() for name in left}
    click.echo(json.dumps(secret))


def _tell(folder: Path, changed: Iterable[str], word: str, *, err: bool = False) -> None:
    changed = set(changed)
    for role, public in identities.load_all_public(folder).items():
        click.echo(f"{word if role in changed else 'kept':8} {role:20} {public}", err=err)


def _refuse_to_overwrite(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if (folder / name).exists():
            raise ConfigError(
                f"{folder / name} exists; use `keys ensure` to complete a set of keys"
                " and `keys rotate` to replace one"
            )


def _manifest(name: str, namespace: str | None) -> str:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        identities.ensure(folder)
        entries = {path.name: path.read_text().strip() for path in sorted(folder.iterdir())}
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    text: str = yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "stringData": entries,
        },
        sort_keys=False,
    )
    return text
