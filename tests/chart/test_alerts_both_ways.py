# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Each alert fires for its fault, of the installation that has it, and for no other fault.

Two installations of which one is well, and the other is but for one thing; Prometheus' own tool
plays that for each fault and asks about every alert.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.test_monitoring import ALERTS
from tests.support.chart.rendered import CHART, TOOLS

_P, _W, _C = "arvados_nats_publishers", "arvados_nats_wsproxy", "arvados_nats_authcallout"
_LENGTH = 90
_LOOK = "40m"
_STILL, _CLOCK = f"3x{_LENGTH}", f"1000+30x{_LENGTH}"
_PUBLISHERS, _WSPROXY = 'job="arvados-nats-publishers"', 'job="arvados-nats-wsproxy"'


def _more(each: int) -> str:
    """A counter that grows by so much each half minute."""
    return f"0+{each}x{_LENGTH}"


def _always(value: float) -> str:
    return f"{value}x{_LENGTH}"


def _lags(metric: str, more: str = "") -> dict[str, str]:
    return {
        f'{metric}_bucket{{{more}le="{le}"}}': _more(60)
        for le in ("1", "5", "10", "15", "60", "+Inf")
    }


def _late(metric: str, more: str = "") -> dict[str, str | None]:
    """One in ten takes up to a minute."""
    return {f'{metric}_bucket{{{more}le="{le}"}}': _more(54) for le in ("1", "5", "10", "15")}


WELL: dict[str, str] = {
    f"up{{{_PUBLISHERS}}}": _always(1),
    f"up{{{_WSPROXY}}}": _always(1),
    'up{job="nats"}': _always(1),
    f'arvados_nats_degraded{{{_PUBLISHERS}, part="nats"}}': _always(0),
    f'arvados_nats_degraded{{{_WSPROXY}, part="events"}}': _always(0),
    f'{_P}_events_leading{{pod="a"}}': _always(1),
    f'{_P}_events_leading{{pod="b"}}': _always(0),
    f'{_P}_permissions_leading{{pod="a"}}': _always(1),
    f'{_P}_permissions_leading{{pod="b"}}': _always(0),
    f"{_P}_permissions_token_sweeps_total": _more(10),
    **_lags(f"{_P}_event_lag_seconds"),
    **_lags(f"{_P}_live_lag_seconds", 'what="event", '),
    **_lags(f"{_W}_event_lag_seconds"),
    **_lags(f"{_P}_log_lag_seconds"),
    f'{_P}_log_controller_calls_total{{outcome="ok"}}': _more(60),
    f'{_P}_log_controller_calls_total{{outcome="failed"}}': _more(2),
    f'{_C}_logins_total{{outcome="admitted"}}': _more(60),
    f'{_C}_logins_total{{outcome="dropped"}}': _STILL,
    f'{_C}_logins_total{{outcome="late"}}': _STILL,
    'arvados_ws_queue_len{pod="a"}': _always(1000),
    'arvados_ws_queue_cap{pod="a"}': _always(1_000_000),
    f"{_W}_undecided_events_total": _STILL,
    f"{_P}_event_row_timestamp_seconds": _CLOCK,
    f"{_P}_event_stored_timestamp_seconds": _CLOCK,
    f'{_W}_event_newest_timestamp_seconds{{pod="a"}}': _CLOCK,
    f'{_W}_event_newest_timestamp_seconds{{pod="b"}}': _CLOCK,
    f"{_W}_bad_events_total": _STILL,
    f"{_W}_holes_total": _STILL,
    f'{_W}_cut_sockets_total{{cause="stuck"}}': _STILL,
    "arvados_ws_sockets": _always(200),
    f"{_P}_log_unconfirmed_ends_total": _STILL,
    f"{_P}_event_resends_total": _STILL,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is otherwise than `WELL` (None: there is no such series), and the alerts it raises with
    the labels they have beside the installation's."""

    changed: dict[str, str | None]
    raises: dict[str, dict[str, str]] = field(default_factory=dict)


_GONE = {name: None for name in WELL if name.startswith(_P)}
FAULTS: dict[str, Fault] = {
    "nothing": Fault({}),
    "a part is ill": Fault(
        {f'arvados_nats_degraded{{{_WSPROXY}, part="events"}}': _always(1)},
        {"ArvadosNatsDegraded": {"job": "arvados-nats-wsproxy", "part": "events"}},
    ),
    "a part is ill for a minute": Fault(
        {f'arvados_nats_degraded{{{_WSPROXY}, part="events"}}': "0x77 1x2 0x9"},
    ),
    "nobody leads": Fault(
        {f'{_P}_events_leading{{pod="a"}}': _always(0)}, {"ArvadosNatsNobodyPublishes": {}}
    ),
    "another leads": Fault(
        {
            f'{_P}_events_leading{{pod="a"}}': "1x60 0x30",
            f'{_P}_events_leading{{pod="b"}}': "0x60 1x30",
        }
    ),
    "nobody says who leads": Fault(
        {f'{_P}_events_leading{{pod="{pod}"}}': None for pod in "ab"},
        {"ArvadosNatsNobodyPublishes": {}},
    ),
    "nobody watches permissions": Fault(
        {f'{_P}_permissions_leading{{pod="a"}}': _always(0)},
        {"ArvadosNatsNobodyWatchesPermissions": {}},
    ),
    "sweeps have stopped": Fault(
        {f"{_P}_permissions_token_sweeps_total": _STILL}, {"ArvadosNatsTokensNotSwept": {}}
    ),
    "events are late": Fault(_late(f"{_P}_event_lag_seconds"), {"ArvadosNatsEventsLate": {}}),
    "live events are late": Fault(
        _late(f"{_P}_live_lag_seconds", 'what="event", '),
        {"ArvadosNatsLiveLate": {"what": "event"}},
    ),
    "sockets are late": Fault(_late(f"{_W}_event_lag_seconds"), {"ArvadosNatsSocketsLate": {}}),
    "logs are late": Fault(_late(f"{_P}_log_lag_seconds"), {"ArvadosNatsLogsLate": {}}),
    "the log API refuses": Fault(
        {f'{_P}_log_controller_calls_total{{outcome="failed"}}': _more(90)},
        {"ArvadosNatsControllerRefusesLogs": {}},
    ),
    "logins are dropped": Fault(
        {f'{_C}_logins_total{{outcome="dropped"}}': _more(6)}, {"ArvadosNatsLoginsDropped": {}}
    ),
    "logins come too late": Fault(
        {f'{_C}_logins_total{{outcome="late"}}': _more(6)}, {"ArvadosNatsLoginsDropped": {}}
    ),
    "a wsproxy is full": Fault(
        {'arvados_ws_queue_len{pod="a"}': _always(900_000)}, {"ArvadosNatsQueueFull": {"pod": "a"}}
    ),
    "events are not decided": Fault(
        {f"{_W}_undecided_events_total": _more(1)}, {"ArvadosNatsEventsUndecided": {}}
    ),
    "a wsproxy is down": Fault(
        {f"up{{{_WSPROXY}}}": _always(0)}, {"ArvadosNatsDown": {"job": "arvados-nats-wsproxy"}}
    ),
    "all publishers are down": Fault(
        {**_GONE, f"up{{{_PUBLISHERS}}}": _always(0)},
        {
            "ArvadosNatsDown": {"job": "arvados-nats-publishers"},
            "ArvadosNatsNobodyPublishes": {},
            "ArvadosNatsNobodyWatchesPermissions": {},
            "ArvadosNatsTokensNotSwept": {},
            "ArvadosNatsNoFigures": {},
        },
    ),
    "rows are not stored": Fault(
        {
            f"{_P}_event_stored_timestamp_seconds": _always(1000),
            f'{_W}_event_newest_timestamp_seconds{{pod="a"}}': _always(1000),
            f'{_W}_event_newest_timestamp_seconds{{pod="b"}}': _always(1000),
        },
        {"ArvadosNatsEventsMissing": {}},
    ),
    "one wsproxy hands nothing on": Fault(
        {f'{_W}_event_newest_timestamp_seconds{{pod="b"}}': _always(1000)},
        {"ArvadosNatsEventsNotDelivered": {"pod": "b"}},
    ),
    "nobody says how far the stream has come": Fault(
        {f"{_P}_event_stored_timestamp_seconds": None}, {"ArvadosNatsNoFigures": {}}
    ),
    "messages are no events": Fault(
        {f"{_W}_bad_events_total": _more(1)}, {"ArvadosNatsBadEvents": {}}
    ),
    "live messages are lost": Fault({f"{_W}_holes_total": _more(5)}, {"ArvadosNatsHoles": {}}),
    "a few live messages are lost": Fault({f"{_W}_holes_total": "0x70 5x20"}),
    "many sockets are cut": Fault(
        {f'{_W}_cut_sockets_total{{cause="stuck"}}': _more(10)}, {"ArvadosNatsSocketsCut": {}}
    ),
    "logs end otherwise": Fault(
        {f"{_P}_log_unconfirmed_ends_total": _more(1)}, {"ArvadosNatsLogsUnconfirmed": {}}
    ),
    "NATS stores nothing": Fault(
        {f"{_P}_event_resends_total": _more(2)}, {"ArvadosNatsNatsNotStoring": {}}
    ),
    "a NATS server is down": Fault(
        {'up{job="nats"}': _always(0)}, {"ArvadosNatsNatsDown": {"job": "nats"}}
    ),
}


def _series(installation: str, values: dict[str, str | None]) -> list[dict[str, str]]:
    found = []
    for name, value in values.items():
        if value is not None:
            metric, _, labels = name.partition("{")
            inside = ", ".join(filter(None, [labels.rstrip("}"), installation]))
            found.append({"series": f"{metric}{{{inside}}}", "values": value})
    return found


def _story(label: str, fault: Fault) -> dict[str, Any]:
    """What Prometheus sees of a fault, and what each alert must say to it."""
    asked = []
    for rule in ALERTS:
        expected = []
        if (more := fault.raises.get(rule["alert"])) is not None:
            summary = rule["annotations"]["summary"]
            for name, value in more.items():
                summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
            labels = {**rule["labels"], label: "sick", **more}
            expected = [{"exp_labels": labels, "exp_annotations": {"summary": summary}}]
        asked.append({"alertname": rule["alert"], "eval_time": _LOOK, "exp_alerts": expected})
    sick: dict[str, str | None] = {**WELL, **fault.changed}
    return {
        "interval": "30s",
        "input_series": [
            *_series(f'{label}="well"', {**WELL}),
            *_series(f'{label}="sick"', sick),
        ],
        "alert_rule_test": asked,
    }


def test_each_alert_has_a_fault() -> None:
    """A new alert needs a line here."""
    assert {rule["alert"] for rule in ALERTS} == {
        alert for fault in FAULTS.values() for alert in fault.raises
    }


@pytest.mark.parametrize("label", ["namespace", "cluster"])
def test_each_fault_raises_its_alert_alone(tmp_path: Path, label: str) -> None:
    """Whatever tells installations apart: namespaces, or the clusters of a shared Prometheus."""
    promtool = shutil.which("promtool", path=f"{TOOLS}:{os.environ['PATH']}")
    if promtool is None:
        pytest.skip(f"no {TOOLS}/promtool: run .ci/prepare promtool, or put it there")
    shutil.copy(CHART / "alerts.yaml", tmp_path)
    stories = [{"name": name, **_story(label, fault)} for name, fault in FAULTS.items()]
    file = {"rule_files": ["alerts.yaml"], "tests": stories}
    (tmp_path / "stories.yaml").write_text(yaml.safe_dump(file))
    command = [promtool, "test", "rules", "stories.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
