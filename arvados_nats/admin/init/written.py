# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Files that `init` writes, and never over what a person changed without being told to.

A record beside them holds the digest of each file as we wrote it: what still is as it was written
may be written anew, anything else is somebody's.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from arvados_nats.errors import ConfigError

_RECORD = ".written.json"
_SECRET = "(secret)"
_SEED = re.compile(r"S[AUX][A-Z2-7]{56}")
"""Also what somebody else wrote into nats.conf: the password of its routes is one."""


class State(Enum):
    """What becomes of a file."""

    NEW = "new"
    SAME = "as it is"
    CHANGED = "changed"
    KEPT = "kept: a person changed it"


@dataclass(frozen=True, slots=True)
class File:
    """One file to write. `secrets` are the parts of its text that nobody is shown."""

    path: Path
    text: str
    mode: int = 0o644
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A file, what there is of it, and what becomes of it."""

    file: File
    before: str | None
    state: State

    def diff(self) -> Iterator[str]:
        """What would be different, without a secret."""
        before = _hidden(self.before or "", self.file.secrets)
        after = _hidden(self.file.text, self.file.secrets)
        name = str(self.file.path)
        yield from difflib.unified_diff(
            before.splitlines(), after.splitlines(), name, f"{name} ({self.state.value})", "", "",
            n=1, lineterm="",
        )  # fmt: skip


def _hidden(text: str, secrets: tuple[str, ...]) -> str:
    """The text as anybody may see it; an older secret, which we do not know, hides all of it."""
    shown = _SEED.sub(_SECRET, text)
    for secret in sorted(secrets, key=len, reverse=True):
        shown = shown.replace(secret, _SECRET)
    return shown if _SECRET in shown or not (text and secrets) else f"another {_SECRET}\n"


def changes(folder: Path, files: Iterable[File], *, overwrite: bool = False) -> list[Change]:
    """What writing these would do."""
    record = _record(folder)
    return [_change(record, file, overwrite) for file in files]


def _change(record: Mapping[str, str], file: File, overwrite: bool) -> Change:
    try:
        before = file.path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return Change(file, None, State.NEW)
    if before == file.text:
        return Change(file, before, State.SAME)
    ours = record.get(str(file.path)) == _digest(before)
    return Change(file, before, State.CHANGED if ours or overwrite else State.KEPT)


def write(folder: Path, wanted: Iterable[Change]) -> None:
    """Carry out changes, each file in one step; what a person changed is left alone.

    A file that is overwritten though a person changed it stays beside the new one as `.old`.
    """
    record = _record(folder)
    for change in wanted:
        if change.state is State.KEPT:
            continue
        path, digest = change.file.path, _digest(change.file.text)
        if change.state is State.CHANGED and record.get(str(path)) != _digest(change.before or ""):
            path.replace(path.with_name(f"{path.name}.old"))
        if change.state is not State.SAME:
            _replace(path, change.file.text, change.file.mode)
        record[str(path)] = digest
    _replace(folder / _RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n", 0o600)


def _record(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return {str(path): str(digest) for path, digest in dict(found).items()}
    except FileNotFoundError:
        return {}
    except (TypeError, ValueError) as error:
        reason = "it is not as this command wrote it: move it away, and all counts as a person's"
        raise ConfigError(f"{folder / _RECORD}: {reason}") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()


def _replace(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(mode=0o700 if mode == 0o600 else 0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
        temporary.replace(path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
