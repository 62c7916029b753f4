# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The rule agrees with a recorded Arvados in every cell; the check would notice if it did not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from arvados_nats.admin.check_cli import check as check_group
from arvados_nats.admin.check_permissions import Report, check, replay
from arvados_nats.admin.permission_recording import Recording
from arvados_nats.errors import BadInput

Document = dict[str, Any]


@pytest.fixture(scope="module")
def recorded(golden: Path) -> bytes:
    return (golden / "permissions.json").read_bytes()


def replay_mutated(recorded: bytes, mutate: Callable[[Document], None]) -> Report:
    """The report on a recording after one thing in it was changed."""
    document = msgspec.json.decode(recorded)
    mutate(document)
    return replay(msgspec.convert(document, Recording))


def test_every_cell_of_the_recording_agrees(golden: Path) -> None:
    """Neither looser nor stricter than Arvados anywhere, and never at a loss."""
    report = check(golden / "permissions.json")

    assert report.cells > 120_000
    assert (report.looser, report.stricter, report.asked) == (0, 0, 0)
    assert report.agree == report.cells
    assert report.passed


def test_the_command_prints_one_json_object(golden: Path) -> None:
    """`arvados-nats check permissions FILE` is fit for scripts."""
    result = CliRunner().invoke(check_group, ["permissions", str(golden / "permissions.json")])

    answer = json.loads(result.output)
    assert result.exit_code == 0
    assert answer["looser"] == answer["stricter"] == answer["asked"] == 0
    assert answer["cells"] == answer["agree"] > 120_000
    assert answer["stale"] > 0
    assert answer["cells_per_second"] > 0


def readers(step: Document) -> list[tuple[str, str]]:
    return [("readable", label) for label, found in step["readable"].items() if found is not None]


def drop_permission(document: Document) -> None:
    """Every recorded user loses its row on everybody's bulletin board, as if we had missed it."""
    step = document["steps"][0]
    step["permissions_set"] = [row for row in step["permissions_set"] if row[0] == row[1]]


def add_permission(document: Document) -> None:
    """A user who may see little gets a row on every project that exists."""
    step = document["steps"][0]
    user = document["matrix_user_uuid"]["kim"]
    step["permissions_set"] += [
        [user, uuid, 3, True] for uuid in step["records_changed"] if "-j7d0g-" in uuid
    ]


def forget_traverse(document: Document) -> None:
    for step in document["steps"]:
        for row in step["permissions_set"]:
            row[3] = False


def traverse_everything(document: Document) -> None:
    for step in document["steps"]:
        for row in step["permissions_set"]:
            row[3] = True


def forget_trash(document: Document) -> None:
    for step in document["steps"]:
        step["trashed_groups"] = {}


def forget_own_trash(document: Document) -> None:
    for step in document["steps"]:
        for record in step["records_changed"].values():
            record.pop("trash_at", None)


def forget_frozen(document: Document) -> None:
    for step in document["steps"]:
        step["frozen_groups"] = []


def hide_roles(document: Document) -> None:
    document["config"]["Users.RoleGroupsVisibleToAll"] = False


def promote(document: Document) -> None:
    user = document["matrix_user_uuid"]["kim"]
    document["steps"][0]["records_changed"][user]["is_admin"] = True


def drop_removals(document: Document) -> None:
    for step in document["steps"]:
        step["permissions_removed"] = []


def stop_the_clock(document: Document) -> None:
    for step in document["steps"]:
        step["time"] = document["steps"][0]["time"]


def forget_merge(document: Document) -> None:
    for step in document["steps"]:
        for record in step["records_changed"].values():
            record.pop("redirect_to_user_uuid", None)


MUTATIONS = [
    # what was changed, what must be noticed
    (drop_permission, {"stricter"}),
    (add_permission, {"looser"}),
    (forget_traverse, {"stricter"}),
    (traverse_everything, {"looser"}),
    (forget_trash, {"looser"}),
    (forget_own_trash, {"looser"}),
    (forget_frozen, {"looser"}),
    (hide_roles, {"stricter"}),
    (promote, {"looser"}),
    (drop_removals, {"looser"}),
    (stop_the_clock, {"looser"}),
    (forget_merge, {"asked", "stricter"}),
]


@pytest.mark.parametrize(
    ("mutate", "noticed"), MUTATIONS, ids=[mutate.__name__ for mutate, _ in MUTATIONS]
)
def test_a_wrong_input_is_noticed(
    recorded: bytes, mutate: Callable[[Document], None], noticed: set[str]
) -> None:
    """The recording is sharp: each input of the rule changes some recorded answer."""
    report = replay_mutated(recorded, mutate).as_dict()

    assert {name for name in ("looser", "stricter", "asked") if report[name]} >= noticed
    assert report["mismatches"]
    assert report["cells"] == report["agree"] + sum(
        report[name] for name in ("looser", "stricter", "asked")
    )


def test_one_flipped_answer_is_one_mismatch(recorded: bytes) -> None:
    """The counts are exact, and the example names the cell."""

    def flip(document: Document) -> None:
        step = document["steps"][3]
        _, label = next(found for found in readers(step) if step["readable"][found[1]])
        flipped.append((step["n"], label, document["objects"][step["readable"][label].pop()]))

    flipped: list[tuple[int, str, Document]] = []
    report = replay_mutated(recorded, flip)

    step, label, found = flipped[0]
    assert (report.looser, report.stricter, report.asked) == (1, 0, 0)
    assert not report.passed
    assert report.examples == [
        {
            "step": step,
            "label": label,
            "question": "readable",
            "uuid": found["uuid"],
            "ours": "yes",
        }
    ]


def test_a_mismatch_makes_the_command_fail(recorded: bytes, tmp_path: Path) -> None:
    """Exit 1 on a rule that differs, 2 on a file that is no recording."""
    document = msgspec.json.decode(recorded)
    document["steps"] = document["steps"][:1]
    hide_roles(document)
    (tmp_path / "differs.json").write_bytes(msgspec.json.encode(document))
    (tmp_path / "broken.json").write_text('{"steps": [{"n": 0}]}')

    run = CliRunner().invoke
    assert run(check_group, ["permissions", str(tmp_path / "differs.json")]).exit_code == 1
    assert run(check_group, ["permissions", str(tmp_path / "broken.json")]).exit_code == 2


def test_stale_cells_may_go_either_way(recorded: bytes) -> None:
    """What Arvados itself answered from an outdated table is counted apart, whatever we say."""

    def forget_stale(document: Document) -> None:
        document["stale_cells"] = []

    def refuse_stale(document: Document) -> None:
        for cell in document["stale_cells"]:
            step = document["steps"][cell["step"]]
            hidden = set(cell["objects"])
            answers = step[cell["question"]]
            answers[cell["label"]] = [i for i in answers[cell["label"]] if i not in hidden]

    as_recorded = replay_mutated(recorded, lambda document: None)
    refused = replay_mutated(recorded, refuse_stale)

    assert as_recorded.stale > 0
    assert (refused.looser, refused.stricter, refused.stale) == (0, 0, as_recorded.stale)
    assert replay_mutated(recorded, forget_stale).cells == as_recorded.cells + as_recorded.stale


def test_names_and_cluster_id_do_not_matter(recorded: bytes) -> None:
    """A recording of another cluster, with other labels, replays the same."""
    text = recorded.decode()
    document = msgspec.json.decode(text.replace('"zgold-', '"qwert-').replace("zgold", "qwert"))
    renamed = {
        label: f"user {n}" if label != "root" else label
        for n, label in enumerate(document["token_strings"])
    }
    for key in ("matrix_user_uuid", "token_strings"):
        document[key] = {renamed[label]: value for label, value in document[key].items()}
    for step in document["steps"]:
        for question in ("readable", "readable_include_trash"):
            step[question] = {renamed[label]: found for label, found in step[question].items()}
    for cell in document["stale_cells"]:
        cell["label"] = renamed[cell["label"]]

    report = replay(msgspec.convert(document, Recording))

    assert report.passed
    assert report.cells == replay(msgspec.json.decode(recorded, type=Recording)).cells


def test_what_is_empty_may_be_left_out_and_more_may_be_said(recorded: bytes) -> None:
    """Keys of a later recorder, absent empty ones, and another label for the SystemRootToken."""

    def change(document: Document) -> None:
        document["more"] = {"said": True}
        document["stale_cells"] = [{**cell, "more": 1} for cell in document["stale_cells"]]
        for key in ("matrix_user_uuid", "token_strings"):
            document[key]["system"] = document[key].pop("root")
        for step in document["steps"]:
            for question in ("readable", "readable_include_trash"):
                step[question]["system"] = step[question].pop("root")
            for key in [key for key, value in step.items() if value in ([], {}, None)]:
                del step[key]
            step["permissions_set"] = [[*r, "more"] for r in step.get("permissions_set", ())]

    report = replay_mutated(recorded, change)

    assert report.passed
    assert report.asked == 0
    assert report.cells == replay_mutated(recorded, lambda document: None).cells


# --- tokens that are refused, or only let in here and there ---------------------------------------


def scoped_label(document: Document, scopes: list[str], *, record: bool, answer: bool) -> None:
    """Add a label whose token is ben's with scopes, as a recording with scoped tokens would."""
    token = "zgold-gj3su-scopedscopedsco"
    document["matrix_user_uuid"]["scoped"] = document["matrix_user_uuid"]["ben"]
    document["token_strings"]["scoped"] = f"v2/{token}/secret"
    if record:
        document["steps"][0]["records_changed"][token] = {
            "uuid": token,
            "owner_uuid": document["matrix_user_uuid"]["ben"],
            "scopes": scopes,
        }
    if answer:
        body = {"uuid": token, "scopes": scopes}
        checks = {"api_client_authorizations/current": {"status": 200, "body": body}}
        document["tokens"].append({"token": f"v2/{token}/secret", "checks": checks})
    collections = {i for i, o in enumerate(document["objects"]) if o["type"] == "collections"}
    for step in document["steps"]:
        readable = set(step["readable"]["ben"] or ())
        step["readable"]["scoped"] = sorted(readable & collections)
        others = set(range(len(document["objects"]))) - collections
        step["other_status"] = {"scoped": {"403": sorted(others)}}


@pytest.mark.parametrize("source", ["record", "answer"])
def test_a_scoped_token_is_held_to_its_scopes(recorded: bytes, source: str) -> None:
    """403 cells are compared where the recording tells the token's scopes."""

    def add(document: Document) -> None:
        scopes = ["GET /arvados/v1/collections/"]
        scoped_label(document, scopes, record=source == "record", answer=source == "answer")

    before = replay_mutated(recorded, lambda document: None)
    report = replay_mutated(recorded, add)

    assert report.passed
    assert report.cells > before.cells + 5_000


def test_403_of_a_token_of_unknown_scopes_is_set_aside(recorded: bytes) -> None:
    """What only the scopes decide says nothing about the rule when they are not recorded."""

    def add(document: Document) -> None:
        scoped_label(document, [], record=False, answer=False)

    report = replay_mutated(recorded, add)

    assert report.passed
    assert report.cells > replay_mutated(recorded, lambda document: None).cells


def test_a_refused_token_is_not_compared(recorded: bytes) -> None:
    """null instead of a list: the token got 401."""

    def refuse(document: Document) -> None:
        for step in document["steps"]:
            step["readable"]["ben"] = step["readable_include_trash"]["ben"] = None

    report = replay_mutated(recorded, refuse)

    assert report.passed
    assert report.cells < replay_mutated(recorded, lambda document: None).cells


def test_a_kind_without_a_rule_is_counted_as_asked(recorded: bytes) -> None:
    """What the page gives no rule for is neither looser nor stricter, and no failure."""

    def add(document: Document) -> None:
        uuid = "zgold-zzzzz-000000000000001"
        document["objects"].append({"uuid": uuid, "type": "new_things", "name": "thing"})
        step = document["steps"][0]
        step["records_changed"][uuid] = {"uuid": uuid, "owner_uuid": None}

    report = replay_mutated(recorded, add)

    assert report.passed
    assert report.asked > 0


def test_what_is_no_recording_is_bad_input(tmp_path: Path) -> None:
    """BadInput, not a traceback."""
    (tmp_path / "list.json").write_text("[]")

    with pytest.raises(BadInput):
        check(tmp_path / "list.json")
