# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats init`: what it writes, what it shows, and what it leaves alone."""

from __future__ import annotations

import json
import os
import resource
import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from arvados_nats.admin import unit_files
from arvados_nats.admin.init import machine
from arvados_nats.cli import main
from arvados_nats.postgres import dsn
from arvados_nats.service import keys
from publishers.settings import Settings as PublisherSettings
from sandbox.servers import tls

SITE = Path(__file__).parents[2] / "site_config.yml"
CHART = Path(__file__).parents[4] / "helm" / "arvados-nats"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any setting."""
    for name in tuple(os.environ):
        if name.startswith("ARVADOS_"):
            monkeypatch.delenv(name)
    for name in ("CONFIG", "CLUSTER"):  # which the command sets for good
        monkeypatch.setenv(f"ARVADOS_NATS_ARVADOS_{name}", "")


def run(place: Path, *more: str, config: Path = SITE) -> Result:
    """The command, for the cluster xurid of a file."""
    words = ["--arvados-config", str(config), "--cluster-id", "xurid", "init", str(place / "etc")]
    return CliRunner().invoke(main, [*words, "--units", str(place / "units"), *more])


def test_nothing_is_written_without_a_yes(tmp_path: Path) -> None:
    """Where nobody can be asked a list is all there is, on one screen; or all the texts."""
    answer = run(tmp_path)
    assert answer.exit_code == 1
    assert f"new  {tmp_path}/etc/environment" in answer.output
    assert len(answer.output.splitlines()) < 50
    assert "+ARVADOS_API_HOST=xurid.example.com" in run(tmp_path, "--diff").output
    assert list(tmp_path.iterdir()) == []


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Neither a new one nor the one before it, also where somebody else wrote it."""
    answers = [run(tmp_path, "--yes", "--diff").output]
    folder = tmp_path / "etc"
    with (folder / "nats.conf").open("a") as conf:
        conf.write(f"password: {keys.load(folder / 'keys', 'routes').text}\n")
    old = SITE.read_text()
    for path in (changed := tmp_path / "config.yml",):
        path.write_text(old.replace("secretxuridroottoken", "secretxuridOTHERtoken"))
    answers += [run(tmp_path, config=changed).output, run(tmp_path, "--yes", config=changed).output]
    shown = "".join(answers)
    assert "kept: a person changed it" in shown
    assert "secretxurid" not in shown
    for path in folder.rglob("*.nk"):
        assert path.read_text().strip() not in shown
    password = dsn.options((folder / "secrets" / "ARVADOS_NATS_POSTGRES_DSN").read_text())
    assert password["password"] not in shown


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Files and folders of them; what services read without root is for everybody."""
    run(tmp_path, "--yes")
    closed = {
        path.name
        for path in (tmp_path / "etc").rglob("*")
        if stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    }
    seeds = {f"{role}.nk" for role in keys.ROLES}
    assert closed >= seeds | {"keys", "secrets", "nats.conf", "role.sql"}
    assert "environment" not in closed


def test_it_can_be_run_again(tmp_path: Path) -> None:
    """Nothing changes, no password and no key; what changed in Arvados' own file is written."""
    run(tmp_path, "--yes")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = run(tmp_path, "--yes")
    assert again.exit_code == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    moved = tmp_path / "config.yml"
    moved.write_text(SITE.read_text().replace("https://xurid.example.com", "https://new.example"))
    said = run(tmp_path, "--yes", config=moved).output
    assert "-ARVADOS_API_HOST=xurid.example.com" in said
    assert "systemctl restart arvados-nats-server " in said
    assert "systemctl restart" not in again.output
    assert "ARVADOS_API_HOST=new.example\n" in (tmp_path / "etc" / "environment").read_text()


def test_what_a_person_changed_is_kept_and_said(tmp_path: Path) -> None:
    """Until they say that it may go; then it stays beside the new one."""
    run(tmp_path, "--yes")
    unit = tmp_path / "units" / "arvados-nats-wsproxy.service"
    written = unit.read_text()
    unit.write_text(written.replace("LimitNOFILE=65536", "LimitNOFILE=9"))
    kept = run(tmp_path, "--yes").output
    assert f"kept: a person changed it  {unit}" in kept
    assert "-LimitNOFILE=9" in kept
    assert "LimitNOFILE=9" in unit.read_text()
    run(tmp_path, "--yes", "--overwrite")
    assert unit.read_text() == written
    assert "LimitNOFILE=9" in unit.with_name(f"{unit.name}.old").read_text()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """With the variable that gives it."""
    words = ["init", str(tmp_path), "--units", str(tmp_path)]
    answer = CliRunner().invoke(main, words, env={"ARVADOS_NATS_POSTGRES_DSN": "host=db"})
    assert answer.exit_code == 2
    assert "ARVADOS_API_HOST: set it" in answer.output


def test_the_units_show_the_services_what_was_written(tmp_path: Path) -> None:
    """The publishers' settings are the site's, with a role of our own, and no other's seeds."""
    run(tmp_path, "--yes")
    unit = unit_files.find("arvados-nats-publishers.service", [tmp_path / "units"])
    assert unit is not None
    shown = tmp_path / "shown"
    shown.mkdir()
    environment = unit_files.with_credentials(unit, shown)
    settings = PublisherSettings(
        secrets_dir=Path(environment["ARVADOS_NATS_SECRETS_DIR"]),
        keys_dir=Path(environment["ARVADOS_NATS_KEYS_DIR"]),
    )
    options = dsn.options(settings.postgres_dsn.get_secret_value())
    assert (options["host"], options["user"]) == ("db.xurid.example.com", "arvados_nats")
    assert settings.log_token.get_secret_value().startswith("secretxuridroottoken")
    assert settings.seed("publisher") == keys.load(tmp_path / "etc" / "keys", "publisher").text
    assert not (shown / "wsproxy.nk").exists()
    assert environment["ARVADOS_NATS_OPS_LISTEN"] == "127.0.0.1:9091"


def test_the_site_of_nginx_has_the_names_that_were_given(tmp_path: Path) -> None:
    """And is written only where one is wanted."""
    run(tmp_path, "--yes")
    assert not (tmp_path / "etc" / "nginx.conf").exists()
    words = ("--host", "ws2.example.org", "--certificate", "/a.crt", "/a.key")
    said = run(tmp_path, "--yes", *words).output
    page = (SITE.parents[2] / "docs" / "install.md").read_text(encoding="utf-8")
    (link,) = (line for line in said.splitlines() if "nginx -t" in line)
    assert link.strip().replace(str(tmp_path / "etc"), "/etc/arvados-nats") in page
    text = (tmp_path / "etc" / "nginx.conf").read_text()
    assert "server_name ws2.example.org;" in text
    assert "/a.crt;" in text
    assert "/a.key;" in text
    script = (tmp_path / "etc" / "workbench.conf").read_text()
    assert 'data-websocket="wss://ws2.example.org/websocket"' in script


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://a:b@h:1/d?sslmode=require", "postgresql://r:p%27w@h:1/d?sslmode=require"),
        ("postgresql://h/d", "postgresql://r:p%27w@h/d"),
        ("postgresql://?host=h&user=a&password=b", "postgresql://?host=h&user=r&password=p%27w"),
    ],
)
def test_the_same_database_as_our_role(url: str, expected: str) -> None:
    """Whoever the login was before; `options` finds the new one."""
    assert dsn.as_role(url, "r", "p'w") == expected
    assert dsn.options(expected)["password"] == "p'w"
    assert dsn.options(expected)["host"].startswith("h")


def test_the_role_is_quoted() -> None:
    """A password is text, whatever is in it."""
    assert "PASSWORD 'a''b'" in machine.role_sql("arvados_nats", "a'b")


def test_the_chart_gets_values_that_it_has(tmp_path: Path) -> None:
    """Each by a name of values.yaml; the Secrets that they name come with them, for their owner."""
    answer = run(tmp_path, "--yes", "--kubernetes", "--host", "ws2.example.org")
    assert answer.exit_code == 0, answer.output
    assert "secretxurid" not in answer.output
    folder = tmp_path / "etc"
    values = yaml.safe_load((folder / "values.yaml").read_text())
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    for part, settings in values.items():
        for name in settings:
            assert name in known[part]
        for name in settings.get("settings", {}):
            assert name in schema[part]["properties"]["settings"]["properties"]
    assert values["arvados"]["clusterID"] == "xurid"
    assert values["wsproxy"]["externalURL"] == "wss://ws2.example.org/websocket"
    space, *made = yaml.safe_load_all((folder / "secrets.yaml").read_text())
    assert {each["metadata"]["namespace"] for each in made} == {space["metadata"]["name"]}
    secrets = {each["metadata"]["name"]: each["stringData"] for each in made}
    assert set(secrets) == {values[part]["existingSecret"] for part in ("arvados", "postgresql")}
    assert dsn.options(secrets["arvados-postgresql"]["dsn"])["user"] == "arvados_nats"
    assert stat.S_IMODE((folder / "secrets.yaml").stat().st_mode) == 0o600
    before = (folder / "secrets.yaml").read_text()
    run(tmp_path, "--yes", "--kubernetes", "--host", "ws2.example.org")
    assert (folder / "secrets.yaml").read_text() == before


def test_a_private_authority_is_known_to_the_chart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a ConfigMap, under the key that the chart mounts."""
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CA_FILE", str(tmp_path / "ca.pem"))
    authority = tls.make(tmp_path / "tls").authority.read_text()
    (tmp_path / "ca.pem").write_text(authority)
    assert run(tmp_path, "--yes", "--kubernetes").exit_code == 0
    found = yaml.safe_load_all((tmp_path / "etc" / "secrets.yaml").read_text())
    (bundle,) = (each for each in found if each["kind"] == "ConfigMap")
    known = yaml.safe_load((CHART / "values.yaml").read_text())["arvados"]["caBundle"]
    assert bundle["data"] == {known["key"]: authority}
    values = yaml.safe_load((tmp_path / "etc" / "values.yaml").read_text())
    told = values["arvados"]["caBundle"]["existingConfigMap"]
    assert told == bundle["metadata"]["name"]


SECRETS = "etc/secrets.yaml"
DSN = "etc/secrets/ARVADOS_NATS_POSTGRES_DSN"
RECORD = "etc/.written.json"


@pytest.mark.parametrize(
    ("left", "text", "told"),
    [
        (SECRETS, "", "no login of ours"),
        (SECRETS, "---\n---\n", "no login of ours"),
        (SECRETS, "{[", "no login of ours"),
        (SECRETS, "- a\n", "no login of ours"),
        (SECRETS, "metadata: {name: arvados-postgresql}\ndata: {dsn: eA==}\n", "no login of ours"),
        (DSN, "neither of both", "no login of ours"),
        (DSN, "\udcff", "no login of ours"),
        (RECORD, "[1]", "not as this command wrote it"),
        (RECORD, "{", "not as this command wrote it"),
        (RECORD, "\udcff", "not as this command wrote it"),
        ("etc/keys", "a file", "Not a directory"),
        ("etc/environment/folder", "a file", "Is a directory"),
    ],
)
def test_what_somebody_left_there_is_named(tmp_path: Path, left: str, text: str, told: str) -> None:
    """In one line with the file's name, instead of a new password or a traceback."""
    path = tmp_path / left
    path.parent.mkdir(parents=True)
    path.write_text(text, errors="surrogateescape")
    answer = run(tmp_path, "--yes", *(["--kubernetes"] if left == SECRETS else []))
    assert answer.exit_code == 2, answer.exception
    (line,) = (line for line in answer.output.splitlines() if "arvados-nats: " in line)
    assert told in line
    assert str(tmp_path / "etc") in line
    assert path.read_text(errors="surrogateescape") == text


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """As on a full disk, whose error knows no name."""
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        answer = run(tmp_path, "--yes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert answer.exit_code == 2, answer.exception
    assert f"arvados-nats: {tmp_path}/etc/keys/" in answer.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "wss://ws.example.com/websocket"], "is no name of a host"),
        (["--host", "ws.example.com; root /"], "is no name of a host"),
        (["--certificate", "a", "b"], "--certificate needs --host"),
        (["--kubernetes", "--certificate", "a", "b"], "your gateway has it"),
    ],
)
def test_words_that_make_no_sense_are_refused(tmp_path: Path, words: list[str], told: str) -> None:
    """Before anything is written."""
    answer = run(tmp_path, "--yes", *words)
    assert answer.exit_code == 2
    assert told in answer.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("ARVADOS_NATS_ARVADOS_CA_FILE", "/nonexistent.pem", "read from /nonexistent.pem: "),
        ("ARVADOS_NATS_ARVADOS_CA_FILE", __file__, f"no authority can be read from {__file__}: "),
        ("ARVADOS_API_HOST", "xurid.example.com:44x", "ARVADOS_API_HOST: it is no"),
        ("ARVADOS_API_HOST", "http://xurid.example.com", "over https alone"),
        ("ARVADOS_NATS_POSTGRES_DSN", "postgresql://a:b/c@db/x", "no host stands where a URL"),
        ("ARVADOS_NATS_ARVADOS_CLUSTER", "zurid", "(xurid, yurid), not zurid"),
    ],
)
def test_answers_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, told: str
) -> None:
    """With the setting's name, and nothing is written."""
    monkeypatch.setenv("ARVADOS_NATS_ARVADOS_CLUSTER", "xurid")
    monkeypatch.setenv(variable, text)
    words = ["--arvados-config", str(SITE), "init", str(tmp_path / "etc"), "--kubernetes", "--yes"]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 2, answer.exception
    assert told in answer.output
    assert list(tmp_path.iterdir()) == []


def test_a_pod_is_not_this_machine(tmp_path: Path) -> None:
    """A database by its socket, and a file of authorities, are said to be out of its reach."""
    words = ["--arvados-config", str(SITE), "--cluster-id", "yurid", "init", str(tmp_path)]
    answer = CliRunner().invoke(main, [*words, "--kubernetes", "--yes"])
    assert answer.exit_code == 0, answer.output
    assert "NOTE: the database's host, /run/postgresql, is in a pod the pod itself" in answer.output
    for place in ("host=::1 dbname=a", "postgresql://a:b@[::1]:5432/a", "host=127.0.0.1 dbname=a"):
        told = {"ARVADOS_NATS_POSTGRES_DSN": place}
        answer = CliRunner().invoke(main, [*words, "--kubernetes", "--yes"], env=told)
        assert "the pod itself" in answer.output
    told = {"ARVADOS_NATS_POSTGRES_DSN": "host=db dbname=a user=b sslrootcert=/etc/ssl/db.pem"}
    answer = CliRunner().invoke(main, [*words, "--kubernetes", "--yes"], env=told)
    assert "the pod itself" not in answer.output
    assert "NOTE: the pods have no /etc/ssl/db.pem" in answer.output


@pytest.mark.parametrize(
    ("place", "port"),
    [
        ("host=db port=5433 dbname=a", 5433),
        ("postgresql://a:b@db:5434/a", 5434),
        ("postgresql://a:b@[::2]:5435/a", 5435),
        ("host=db,db2 port=5432,5433 dbname=a", None),
        ("host=db dbname=a", None),
        ("postgresql://a:b@db:5432/a", None),
    ],
)
def test_the_policy_lets_out_to_where_the_database_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, port: int | None
) -> None:
    """Its port stands in the connection string alone."""
    monkeypatch.setenv("ARVADOS_NATS_POSTGRES_DSN", place)
    assert run(tmp_path, "--yes", "--kubernetes").exit_code == 0
    values = yaml.safe_load((tmp_path / "etc" / "values.yaml").read_text())
    assert values["postgresql"].get("port") == port


def test_units_name_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was typed: systemd takes no others."""
    monkeypatch.chdir(tmp_path)
    assert run(Path(), "--yes", "--store-dir", "store").exit_code == 0
    unit = unit_files.find("arvados-nats-server.service", [tmp_path / "units"])
    assert unit is not None
    assert unit.config == tmp_path / "etc" / "nats.conf"
    assert f'store_dir: "{tmp_path}/store"' in (tmp_path / "etc" / "nats.conf").read_text()


def test_keys_in_a_folder_that_is_none_are_refused(tmp_path: Path) -> None:
    """In one line, by each command about keys."""
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "keys")
    for words in (["ensure", folder], ["generate", folder], ["generate", "-o", "yaml", folder]):
        answer = CliRunner().invoke(main, ["keys", *words])
        assert answer.exit_code == 2, answer.exception
        assert answer.output == f"arvados-nats: {folder}: Not a directory\n"
