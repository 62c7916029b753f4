# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Decisions of the commands: exit codes, reasons of refusals, options."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from arvados_nats import cli
from arvados_nats.commands import logs, nats_login
from arvados_nats.commands.log_lines.choice import Choice, moment
from arvados_nats.commands.log_lines.merge import Line
from arvados_nats.commands.logs_cli import logs as logs_command
from arvados_nats.commands.nats_login import Holder
from arvados_nats.commands.watch.cli import watch as watch_group
from arvados_nats.commands.whoami_cli import whoami as whoami_command


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("Complete", 0, 0),
        ("Complete", 137, 137),
        ("Complete", None, 1),
        ("Cancelled", None, 1),
        ("Cancelled", 0, 1),
        ("Running", None, logs.NOT_ENDED),
        ("Queued", None, logs.NOT_ENDED),
        (None, None, logs.NOT_ENDED),
    ],
)
def test_exit_code_stands_for_the_container(
    state: str | None, code: int | None, expected: int
) -> None:
    """Success is only what completed with 0."""
    assert logs.code_of(state, code) == expected


@pytest.mark.parametrize(
    ("scopes", "seconds", "words"),
    [
        (["all"], 0.1, "refused too often"),
        (["all"], 2.0, "callout service has not answered"),
        (["GET /arvados/v1/collections/"], 0.1, "refused too often"),
        ([], 0.1, "scopes \\(none\\) cover no kind"),
        (["GET /arvados/v1/users/current"], 3.0, "scopes .* cover no kind"),
    ],
)
def test_most_likely_reason_of_a_refusal(scopes: list[str], seconds: float, words: str) -> None:
    """What the token itself shows comes first, then how long the answer took."""
    holder = Holder({"uuid": "t", "owner_uuid": "u", "scopes": scopes}, {})
    assert re.search(words, nats_login.why_refused(holder, seconds))


@pytest.mark.parametrize("name", ["logs", "watch", "whoami"])
def test_commands_are_found_and_explain_themselves(name: str) -> None:
    """The table of commands names them, and help needs no settings."""
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_short_file_names_stand_for_the_usual_ones() -> None:
    """`--file stdout` is stdout.txt; a name with a dot is taken as it is."""
    arguments = ["--file", "stdout", "--file", "node.json", "zzzzz-dz642-000000000000001"]
    context = logs_command.make_context("logs", arguments)
    assert context.params["files"] == ("stdout.txt", "node.json")


def test_every_option_is_in_the_guide() -> None:
    """docs/terminal.md names each option of each command."""
    guide = (Path(__file__).parents[4] / "docs/terminal.md").read_text(encoding="utf-8")
    commands = [logs_command, whoami_command, *watch_group.commands.values()]
    options = {
        option
        for command in commands
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    }
    assert "--exit-code" in options
    assert sorted(option for option in options if f"`{option}`" not in guide) == []


def test_every_command_has_its_group_in_the_help() -> None:
    """What is new is shown, too, and once."""
    named = [name for names in cli.GROUPS.values() for name in names]
    assert sorted(named) == sorted(cli.COMMANDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", "2026-01-31T11:58:30+00:00"),
        ("1h30m", "2026-01-31T10:30:00+00:00"),
        ("2d", "2026-01-29T12:00:00+00:00"),
        ("2026-01-31T09:00:00+01:00", "2026-01-31T08:00:00+00:00"),
        ("2026-01-31T09:00:00Z", "2026-01-31T09:00:00+00:00"),
    ],
)
def test_a_time_is_one_of_the_day_or_so_long_ago(text: str, expected: str) -> None:
    """As people say it, and as ISO 8601 has it."""
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment(text, now) == datetime.fromisoformat(expected)


@pytest.mark.parametrize("text", ["", "soon", "12", "h", "99999999999999d", "2026-13-01"])
def test_what_is_no_time_is_told(text: str) -> None:
    """As what is wrong with the option, not by a traceback."""
    result = CliRunner().invoke(cli.main, ["logs", "--since", text, "x"])
    assert result.exit_code == 2
    assert "neither a time" in result.output


@pytest.mark.parametrize(
    "text",
    [
        "needle",
        "nee\x1b[1mdle",
        "nee\x1b]8;;http://x/\x07dle",
        "nee\x1b(Bdle",
        "\x1b]8;;\x1b\\needle",
    ],
)
def test_a_pattern_is_found_in_what_is_shown(text: str) -> None:
    """No colour, link or title stands between two letters."""
    line = Line("stdout.txt", f"2026-11-25T01:02:03Z {text}\n".encode(), b"", 0.0)
    assert Choice(pattern=re.compile("^needle$")).has(line)


_REQUEST = "zzzzz-xvhdp-0123456789abcde"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("logs", "--since", "1h", "--until", "2h", _REQUEST), "--until is before --since"),
        (("logs", "--list", "-f"), "--list shows no lines: leave out --follow"),
        (("logs", "--list", "--grep", "x", "-n", "0"), "leave out --tail, --grep"),
        (("watch", "project", _REQUEST), "not the uuid of a project or a user"),
        (("watch", "events", "--owner", "nobody"), "not the uuid of an Arvados object"),
        (("watch", "events", "--object", "nobody"), "not the uuid of an Arvados object"),
    ],
)
def test_what_would_show_nothing_is_refused(words: tuple[str, ...], said: str) -> None:
    """At once, with what to leave out; nobody waits for what never comes."""
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 2
    assert said in result.output
