# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds: each thing it looked at is well or wrong, or it says why it did not look.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from arvados_nats.admin.check_connections import Note

_AUTHORITY = (
    "name the CA file of its authority: ARVADOS_NATS_ARVADOS_CA_FILE, ARVADOS_NATS_NATS_CA_FILE, or"
    " sslrootcert for PostgreSQL"
)
_REASONS = {
    "has expired": "renew the certificate of that host, and reload what serves it",
    "not yet valid": "timedatectl set-ntp true, here and where the certificate was made",
    "Hostname mismatch": "use a name that its certificate has, or give it one with that name",
    "IP address mismatch": "use a name that its certificate has, not an address",
    "CERTIFICATE_VERIFY_FAILED": _AUTHORITY,
    "no authority can be read": _AUTHORITY,
    "no answer in time": "see whether that machine runs, and no firewall drops what is sent to it",
}


_LABEL = "-n arvados-nats -l app.kubernetes.io/component="
_AGAIN = "arvados-nats init --kubernetes, kubectl apply, helm upgrade"
_IN_A_POD = {
    r"systemctl restart arvados-nats-server": f"kubectl rollout restart statefulset {_LABEL}nats",
    r"systemctl restart arvados-nats-(\w+)": rf"kubectl rollout restart deployment {_LABEL}\1",
    r"journalctl -u arvados-nats-server -n (\d+)": rf"kubectl logs {_LABEL}nats --tail \1",
    r"journalctl -u arvados-nats-(\w+) -n (\d+)": rf"kubectl logs {_LABEL}\1 --tail \2",
    r"arvados-nats (--arvados-config \S+ )?init( \(it writes nats.conf anew\))?": _AGAIN,
    r"/etc/arvados-nats/environment": "the values",
    r"ARVADOS_API_HOST, Services\.Websocket\.ExternalURL or the CA file": (
        "arvados.apiHost or arvados.caBundle in the values"
    ),
    r"ARVADOS_NATS_POSTGRES_DSN": "the Secret postgresql.existingSecret",
}


class Verdict(StrEnum):
    """What became of a look."""

    OK = "ok"
    WRONG = "wrong"
    SKIPPED = "not looked at"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was to be looked at."""

    part: str
    verdict: Verdict
    text: str = ""
    mend: str = ""
    """The command that mends it."""
    since: str = ""
    here: bool = False
    """Whether files of this machine say so: waiting does not help."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what is empty is left out."""
        return {name: value for name, value in asdict(self).items() if value not in ("", False)}


def ok(part: str, text: str = "") -> Finding:
    return Finding(part, Verdict.OK, text)


def wrong(part: str, text: str, mend: str, *, since: str = "", here: bool = False) -> Finding:
    return Finding(part, Verdict.WRONG, text, mend, since, here)


def skipped(part: str, text: str) -> Finding:
    return Finding(part, Verdict.SKIPPED, text)


def in_a_pod(found: Finding) -> Finding:
    """The same with a command that mends it there."""
    mend = found.mend
    for words, meant in _IN_A_POD.items():
        mend = re.sub(words, meant, mend)
    return replace(found, mend=mend)


def of_check(
    found: Mapping[str, str | None], mends: Mapping[str, str], default: str
) -> Iterator[Finding]:
    """What one of the checks says, with what mends each part."""
    for part, told in found.items():
        if told is None or isinstance(told, Note):
            yield ok(part, told or "")
        else:
            yield wrong(part, told, of_reason(told) or mends.get(part, default))


def of_reason(told: str) -> str:
    """What mends it where the text says why, whoever it is about; empty where it does not."""
    return next((mend for fault, mend in _REASONS.items() if fault in told), "")


def text(findings: list[Finding], *, everything: bool = True) -> str:
    """For a person: what was looked at, then what is wrong, since when, and what mends it."""
    faults = [found for found in findings if found.verdict is Verdict.WRONG]
    lines = [_line(found) for found in findings] if everything else []
    if not faults:
        return "\n".join([*lines, "", "Nothing is wrong."])
    more = ", the first may be the cause of those after it" if len(faults) > 1 else ""
    lines += ["", f"{len(faults)} wrong{more}:"]
    for found in faults:
        since = f" (since {found.since})" if found.since else ""
        lines += [f"- {found.part}: {found.text}{since}", f"  mend it: {found.mend}"]
    return "\n".join(lines)


def _line(found: Finding) -> str:
    fault = found.verdict is Verdict.WRONG
    verdict = found.verdict.upper() if fault else found.verdict
    told = f" ({found.text})" if found.text and not fault else ""
    return f"{verdict:<15}{found.part}{told}"


def exit_code(findings: list[Finding]) -> int:
    """0 if nothing is wrong, 2 if files of this machine are, 1 otherwise."""
    faults = [found for found in findings if found.verdict is Verdict.WRONG]
    return 2 if any(found.here for found in faults) else int(bool(faults))
