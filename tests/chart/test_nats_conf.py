# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The NATS servers of the chart are told what `arvados_nats.nats.server_config` says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import runpy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from arvados_nats.contract import streams
from arvados_nats.errors import Unavailable
from arvados_nats.nats import accounts_config, conf_text, server_config
from arvados_nats.nats import client as nats_client
from arvados_nats.nats.client import Nats
from publishers.settings import Settings as PublisherSettings
from tests.support.chart import nats_servers
from tests.support.chart.rendered import CHART, ROOT, Helm, Rendered
from tests.support.waiting import until

VARIABLES = {
    "callout": "CALLOUT_USER",
    "callout-service": "CALLOUT_SERVICE_USER",
    "publisher": "PUBLISHER_USER",
    "wsproxy": "WSPROXY_USER",
    "sys": "SYS_USER",
    "issuer": "CALLOUT_ISSUER",
    "xkey": "CALLOUT_XKEY",
    "callout.next": "CALLOUT_NEXT_USER",
    "callout-service.next": "CALLOUT_SERVICE_NEXT_USER",
    "publisher.next": "PUBLISHER_NEXT_USER",
    "wsproxy.next": "WSPROXY_NEXT_USER",
    "sys.next": "SYS_NEXT_USER",
}
PASSWORD = "CLUSTER_PASSWORD"
NATS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())["nats"]


def unquoted(value: Any) -> Any:
    """Sizes as the nats chart's values hold text that must not be quoted."""
    match value:
        case conf_text.Size():
            return f"<< {value} >>"
        case dict():
            return {key: unquoted(item) for key, item in value.items()}
        case list():
            return [unquoted(item) for item in value]
        case _:
            return value


def expected(limits: accounts_config.AccountLimits) -> dict[str, Any]:
    """What the values must hold, made of the one description of who is who."""
    public = {role: f"<< ${variable} >>" for role, variable in VARIABLES.items()}
    settings = server_config.settings(server_config.Server("x"), public, limits)
    names = ["system_account", "max_payload", "max_control_line", "authorization", "accounts"]
    names += server_config.PINGS
    found: dict[str, Any] = unquoted({name: settings[name] for name in names})
    return found


def test_accounts_and_logins_are_those_of_a_bare_server() -> None:
    """Word for word, with three copies of each stream counted against the account."""
    size = re.fullmatch(r"(\d+)Gi", NATS["config"]["jetstream"]["fileStore"]["maxSize"])
    assert size is not None
    copies = NATS["config"]["cluster"]["replicas"]
    limits = accounts_config.AccountLimits(store=int(size[1]) * conf_text.GIB, copies=copies)
    assert NATS["config"]["merge"] == expected(limits)


def test_one_server_alone_has_a_third_of_it() -> None:
    """The example for a small site counts one copy, and writes each message at once."""
    single = yaml.safe_load((CHART / "ci" / "single-values.yaml").read_text())["nats"]["config"]
    limits = accounts_config.AccountLimits(store=20 * conf_text.GIB, copies=1)
    account = expected(limits)["accounts"]["ARVADOS"]["jetstream"]
    mine = single["merge"]["accounts"]["ARVADOS"]["jetstream"]
    assert mine == {"max_file": account["max_file"]}
    assert single["jetstream"]["merge"]["sync_interval"] == "always"


def test_the_streams_fit_the_account_and_the_volume() -> None:
    """All copies of all, with their default limits; and the server stops before the volume."""
    settings = PublisherSettings.model_fields
    streamed = sum(
        settings[f"{name}_max_bytes"].default for name in ("events", "logs", "system_logs")
    )
    store = NATS["config"]["jetstream"]["fileStore"]
    size, volume = (
        int(text.removesuffix("Gi")) for text in (store["maxSize"], store["pvc"]["size"])
    )
    assert streamed < size * conf_text.GIB * 0.9
    assert size < volume


@pytest.mark.parametrize(("example", "servers"), [("minimal", "3"), ("single", "1")])
def test_every_stream_has_a_copy_on_each_server(helm: Helm, example: str, servers: str) -> None:
    """One that is left out would be gone with its server, and its publisher would not be well."""
    copies = {
        name: value
        for name, value in helm.template(example).environment("publishers").items()
        if name.endswith("_REPLICAS")
    }
    known = [name for name in PublisherSettings.model_fields if name.endswith("_replicas")]
    assert copies == {f"ARVADOS_NATS_{name.upper()}": servers for name in known}


def test_each_variable_is_the_public_key_it_is_named_after(helm: Helm) -> None:
    """From the Secret that the hook completes, whatever the release is called. One is a seed."""
    (server,) = helm.template("minimal", release="other").one("StatefulSet", "nats")["spec"][
        "template"
    ]["spec"]["containers"]
    held = {
        item["name"]: item["valueFrom"]["secretKeyRef"]
        for item in server["env"]
        if "secretKeyRef" in item.get("valueFrom", {})
    }
    assert held == {
        variable: {"name": "other-nkeys", "key": f"{role}.pub"}
        for role, variable in VARIABLES.items()
    } | {PASSWORD: {"name": "other-nkeys", "key": f"{server_config.ROUTES}.nk"}}


async def test_a_server_starts_with_it_and_knows_our_identities(helm: Helm, tmp_path: Path) -> None:
    """Real keys in the variables: publishers log in by nkey, others are sent to the callout."""
    async with publisher(helm.template("single"), tmp_path) as nats:
        await streams.ensure(nats, streams.event_stream())
        await streams.ensure(nats, streams.log_stream())
        assert await nats.stream_config(streams.LOGS)


@asynccontextmanager
async def publisher(rendered: Rendered, folder: Path) -> AsyncIterator[Nats]:
    """A connection of the publishers to the chart's servers."""
    held = nats_servers.generated_keys("r-nkeys")
    seed = held["r-nkeys", "publisher.nk"]
    async with (
        nats_servers.running(rendered, held, folder) as servers,
        nats_client.connect(servers.urls, name="publisher", seed=seed, timeout=20) as nats,
    ):
        yield nats


async def test_three_servers_keep_three_copies(helm: Helm, tmp_path: Path) -> None:
    """The default values, with the account's limit over three volumes, and streams as told."""
    rendered = helm.template("minimal")
    copies = int(rendered.environment("publishers")["ARVADOS_NATS_LOGS_REPLICAS"])
    limits = dataclasses.replace(streams.DEFAULT_LOG_LIMITS, replicas=copies)
    async with publisher(rendered, tmp_path) as nats:
        deadline = asyncio.get_running_loop().time() + 30
        while True:
            try:
                await streams.ensure(nats, streams.log_stream(limits))
                break
            except Unavailable:  # no leader yet
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.1)
        info = await nats.stream_info(streams.LOGS)
        assert info is not None
        assert info["config"]["num_replicas"] == copies == 3
        assert len(info["cluster"]["replicas"]) == 2


@pytest.mark.parametrize("sets", [(), ("nats.config.cluster.replicas=5",)])
def test_routes_lead_to_every_server_of_the_cluster(helm: Helm, sets: tuple[str, ...]) -> None:
    """As many as there are pods, and none tells clients of addresses they cannot reach."""
    rendered = helm.template("minimal", *sets)
    assert '"no_advertise": true' in rendered.nats_conf
    told = nats_servers.variables(rendered, nats_servers.generated_keys("r-nkeys"), "r-nats-0")
    assert json.loads(told["CLUSTER_ROUTES"]) == [
        f"nats://{server_config.ROUTES}:{told[PASSWORD]}@{pod}"
        for pod in nats_servers.pod_addresses(rendered)
    ]


def test_the_servers_know_each_other_by_the_seed_of_routes(helm: Helm) -> None:
    """As those of `config nats-server` do; what is not in a variable, everybody reads."""
    cluster = server_config.Routes("c", "x:6222", (), password=f"<< ${PASSWORD} >>")
    public = dict.fromkeys(VARIABLES, "U")
    settings = server_config.settings(
        server_config.Server("x", cluster=cluster), public, accounts_config.AccountLimits()
    )
    told = NATS["config"]["cluster"]["merge"]
    assert told["authorization"] == settings["cluster"]["authorization"]
    held = nats_servers.generated_keys("r-nkeys")
    rendered = helm.template("minimal")
    variables = nats_servers.variables(rendered, held, "r-nats-0")
    assert variables[PASSWORD] == held["r-nkeys", f"{server_config.ROUTES}.nk"]
    assert f'"password": ${PASSWORD}' in rendered.nats_conf


@pytest.mark.parametrize("login", ["", "routes:routes@"])
async def test_a_stranger_cannot_join_the_cluster(helm: Helm, tmp_path: Path, login: str) -> None:
    """A server that was told the cluster's name and where the others are (S12): it is refused,
    and the three have routes to each other and to nobody else."""
    rendered, held = helm.template("minimal"), nats_servers.generated_keys("r-nkeys")
    async with nats_servers.running(rendered, held, tmp_path) as servers:
        async with nats_servers.stranger(servers, tmp_path, login) as stranger:
            await until(
                lambda: "Authorization Violation" in stranger.tail(1000), "it is refused", 20
            )
            names = {f"nats-{number}" for number in range(3)}
            expected = {name: names - {name} for name in names}
            async with asyncio.timeout(60):
                while await routes(servers, held["r-nkeys", "sys.nk"]) != expected:
                    pass


async def routes(servers: nats_servers.Servers, seed: str) -> dict[str, set[str]]:
    """Each server, and those that it has routes to."""
    async with nats_client.connect(servers.urls, name="sys", seed=seed, timeout=20) as nats:
        answers = [
            json.loads(answer.data)
            async for answer in nats.request_all("$SYS.REQ.SERVER.PING.ROUTEZ")
        ]
    return {
        answer["server"]["name"]: {route["remote_name"] for route in answer["data"]["routes"]}
        for answer in answers
    }


@pytest.mark.parametrize("example", ["minimal", "full", "netpol"])
def test_a_reload_never_happens(helm: Helm, example: str) -> None:
    """A reload of accounts cuts all clients: the sidecar is off, the pods roll instead."""
    server = helm.template(example).one("StatefulSet", "nats")["spec"]["template"]["spec"]
    assert [container["name"] for container in server["containers"]] == ["nats"]
    assert NATS["reloader"] == {"enabled": False}
    assert NATS["podTemplate"]["configChecksumAnnotation"] is True


def test_a_release_of_nats_alone_is_told_the_same(helm: Helm, chart_copy: Path) -> None:
    """Run `python tools/make_chart.py` after changing values.yaml."""
    values = CHART.parent / "nats-values.yaml"
    maker = runpy.run_path(str(ROOT / "tools" / "make_chart.py"))
    assert values.read_text(encoding="utf-8") == maker["nats_values"]()
    alone = Rendered(helm.run("template", "nats", chart_copy / "charts" / "nats", "-f", values))
    beside = helm.template("minimal", "nats.fullnameOverride=nats")
    assert alone.nats_conf == beside.nats_conf
    (server,) = alone.one("StatefulSet", "nats")["spec"]["template"]["spec"]["containers"]
    secrets = {
        item["valueFrom"]["secretKeyRef"]["name"]
        for item in server["env"]
        if "secretKeyRef" in item.get("valueFrom", {})
    }
    assert secrets == {"arvados-nats-nkeys"}
