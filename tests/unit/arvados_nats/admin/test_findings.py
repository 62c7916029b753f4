# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What the doctor tells people to do can be done where they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arvados_nats.admin import doctor
from arvados_nats.admin.doctor import arvados_side, finding

COMMANDS = sorted(
    {
        command
        for path in Path(doctor.__file__).parent.glob("*.py")
        if path.stem != "finding"
        for command in re.findall(
            r"(?:systemctl restart|journalctl -u) arvados-nats-[a-z]+(?: -n \d+)?"
            r"|arvados-nats init",
            path.read_text(encoding="utf-8"),
        )
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pod_has_no_systemd(command: str) -> None:
    """Each command of a machine has one of Kubernetes in its place."""
    assert len(COMMANDS) > 5
    found = finding.in_a_pod(finding.wrong("x", "y", f"{command}; {command}"))
    assert not re.search(r"systemctl|journalctl|init(?! --kub)", found.mend)
    assert found.mend.count("kubectl") == 2
    assert len(re.findall("kubectl (?:rollout|logs)", found.mend)) == found.mend.count(" -n arva")


@pytest.mark.parametrize("mend", arvados_side._MENDS.values())
def test_a_pod_is_set_by_values(mend: str) -> None:
    """Nobody who uses the chart sets a variable of the environment."""
    assert "ARVADOS_" not in finding.in_a_pod(finding.wrong("x", "y", mend)).mend


def test_what_others_suffer_from_is_said_to_come_first() -> None:
    """Where there is more than one."""
    faults = [finding.wrong(part, "no", "mend") for part in "ab"]
    assert "2 wrong, the first may be the cause of those after it:" in finding.text(faults)
    assert "\n1 wrong:\n" in finding.text(faults[:1])
