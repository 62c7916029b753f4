# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`arvados-nats keys ensure --secret`: the chart's hook, against an API that answers like one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from arvados_nats.admin import keys_cluster
from arvados_nats.cli import main
from arvados_nats.errors import ConfigError, Refused, Unavailable
from arvados_nats.service import keys
from sandbox.servers import tls
from tests.support.fronts import kubernetes_api
from tests.support.fronts.kubernetes_api import KubernetesApi

SECRETS = "/api/v1/namespaces/arvados/secrets"
SECRET = f"{SECRETS}/nkeys"
ALL = sorted(f"{role}.{end}" for role in keys.ALL for end in ("nk", "pub"))


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    """An API server without any Secret."""
    with kubernetes_api.run() as (server, _):
        yield server


def _cluster(api: KubernetesApi, token: str = kubernetes_api.TOKEN) -> keys_cluster.KubernetesApi:
    url = f"http://127.0.0.1:{api.server_address[1]}"
    return keys_cluster.KubernetesApi(url, token, None, "arvados")


def test_the_secret_is_created_once(api: KubernetesApi) -> None:
    """The first run makes every key, the second writes nothing."""
    assert keys_cluster.ensure(_cluster(api), "nkeys") == ALL
    made = api.entries(SECRET)
    assert all(keys.parse_seed(made[f"{role}.nk"]).kind is keys.ROLES[role] for role in keys.ROLES)
    assert keys_cluster.ensure(_cluster(api), "nkeys") == []
    assert api.entries(SECRET) == made
    assert api.asked == ["GET", "POST", "GET"]


def test_what_is_missing_is_added_and_nothing_is_replaced(api: KubernetesApi) -> None:
    """An upgrade that brings a new identity keeps the others, and foreign entries too."""
    issuer, sys = keys.generate(keys.Kind.ACCOUNT), keys.generate(keys.Kind.USER)
    kept = {"issuer.nk": issuer.text, "sys.nk": sys.text, "sys.pub": sys.public, "note": "ours"}
    api.store(SECRET, kept)
    new = keys_cluster.ensure(_cluster(api), "nkeys")
    assert "issuer.pub" in new
    assert not {"issuer.nk", "sys.nk", "sys.pub"} & set(new)
    after = api.entries(SECRET)
    assert {name: after[name] for name in kept} == kept
    assert after["issuer.pub"] == issuer.public
    assert sorted(after) == sorted([*ALL, "note"])


@pytest.mark.parametrize("before", [{}, {"note": "ours"}], ids=["no Secret", "half a Secret"])
def test_two_hooks_at_once_end_with_one_set_of_keys(
    api: KubernetesApi, before: dict[str, str]
) -> None:
    """Whoever comes second finds what the first one wrote, and keeps it."""
    if before:
        api.store(SECRET, before)
    first = keys_cluster.missing({})

    def other_hook(server: KubernetesApi) -> None:
        server.meanwhile = lambda _: None
        server.store(SECRET, first)

    api.meanwhile = other_hook
    assert keys_cluster.ensure(_cluster(api), "nkeys") == []
    assert api.entries(SECRET) == {**before, **first}


def test_endless_conflicts_are_given_up(api: KubernetesApi) -> None:
    """The hook fails and is tried again by its Job; it does not spin."""
    api.store(SECRET, {})
    api.meanwhile = lambda server: server.store(SECRET, {"note": "changed"})
    with pytest.raises(Unavailable, match="somebody else"):
        keys_cluster.ensure(_cluster(api), "nkeys")
    assert len(api.asked) < 20


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_missing_rights_are_named(api: KubernetesApi, method: str) -> None:
    """The message tells which verb on which path the Role lacks."""
    api.forbidden.add(method)
    if method == "PATCH":
        api.store(SECRET, {})
    with pytest.raises(Refused, match=f"may not {method} {SECRETS}"):
        keys_cluster.ensure(_cluster(api), "nkeys")


def test_a_wrong_token_is_refused(api: KubernetesApi) -> None:
    """401 is a refusal too, and the token is not repeated."""
    with pytest.raises(Refused) as refused:
        keys_cluster.ensure(_cluster(api, "wrong-token"), "nkeys")
    assert "wrong-token" not in str(refused.value)


def test_an_api_in_trouble_is_unavailable(api: KubernetesApi) -> None:
    """A 500 decides nothing, and no answer at all neither."""
    api.failing = True
    with pytest.raises(Unavailable, match="500"):
        keys_cluster.ensure(_cluster(api), "nkeys")
    nowhere = keys_cluster.KubernetesApi("http://127.0.0.1:1", "", None, "arvados")
    with pytest.raises(Unavailable, match="does not answer"):
        keys_cluster.ensure(nowhere, "nkeys")


def test_a_damaged_seed_is_not_replaced(api: KubernetesApi) -> None:
    """What cannot be read may still be somebody's: the operator decides."""
    api.store(SECRET, {"publisher.nk": "SUAdamaged"})
    with pytest.raises(ConfigError, match=r"publisher\.nk") as error:
        keys_cluster.ensure(_cluster(api), "nkeys")
    assert "SUAdamaged" not in str(error.value)
    assert list(api.entries(SECRET)) == ["publisher.nk"]


def test_the_command_finds_the_cluster_that_its_pod_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address from the environment; token, namespace and authority from the mounted account."""
    certificates = tls.make(tmp_path / "tls")
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(kubernetes_api.TOKEN + "\n")
    (account / "namespace").write_text("arvados")
    (account / "ca.crt").write_bytes(certificates.authority.read_bytes())
    of_this_pod = keys_cluster.of_this_pod
    monkeypatch.setattr(keys_cluster, "of_this_pod", lambda name: of_this_pod(name, account))
    with kubernetes_api.run(certificates.server_context()) as (server, url):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT_HTTPS", url.rpartition(":")[2])
        first, second = (
            CliRunner().invoke(main, ["keys", "ensure", "--secret", "nkeys"]) for _ in range(2)
        )
        made = server.entries(SECRET)
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert "created issuer.nk" in first.output
    assert second.output == "nothing was missing\n"
    assert not any(made[f"{role}.nk"] in first.output for role in keys.ROLES)


@pytest.mark.parametrize("host", ["", "10.0.0.1"])
def test_outside_of_a_pod_the_command_says_so(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """No cluster, or no service account: exit code 2 and the reason."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    result = CliRunner().invoke(main, ["keys", "ensure", "--secret", "nkeys"])
    assert result.exit_code == 2
    assert ("service account" if host else "KUBERNETES_SERVICE_HOST") in result.output


def test_an_ipv6_cluster_is_addressed_in_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes gives the bare address."""
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT_HTTPS", raising=False)
    cluster = keys_cluster.of_this_pod("mine", tmp_path)
    assert (cluster.url, cluster.namespace) == ("https://[fd00::1]:443", "mine")
