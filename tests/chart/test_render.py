# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Every way of running the chart renders, the same each time and with each Helm."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.chart.rendered import CHART, EXAMPLES, Helm, RefusedByHelm, Rendered

LONG = "a" * 53
"""As long as Helm lets a release's name be."""
SHORT_NATS = "nats.fullnameOverride=broker"


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_passes_lint(either_helm: Helm, example: str) -> None:
    """With its schema, and warnings count."""
    assert "0 chart(s) failed" in either_helm.run(
        "lint", "--strict", *either_helm.arguments(example)
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_both_helms_make_the_same_objects(helm: Helm, helm3: Helm, example: str) -> None:
    """A site may use either, and change over."""
    assert helm.template(example).objects == helm3.template(example).objects


def test_nothing_is_random(helm: Helm) -> None:
    """An upgrade that changes nothing restarts nothing, and GitOps tools see no difference."""
    arguments = helm.arguments("full")
    assert helm.run("template", "r", *arguments) == helm.run("template", "r", *arguments)


@pytest.mark.parametrize(
    ("release", "sets"), [("r", ()), ("arvados-nats", ()), (LONG, (SHORT_NATS,))]
)
def test_names_are_valid_and_distinct(helm: Helm, release: str, sets: tuple[str, ...]) -> None:
    """63 characters at most, whatever the release is called, and no two objects share a name."""
    rendered = helm.template("full", *sets, release=release)
    named = [(found["kind"], found["metadata"]["name"]) for found in rendered.objects]
    assert len(set(named)) == len(named)
    valid = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
    assert [name for _, name in named if not valid.fullmatch(name)] == []


def test_a_name_that_is_too_long_for_nats_is_refused(helm: Helm) -> None:
    """NATS would be installed and never start a pod."""
    assert "at most 52" in helm.refusal("minimal", f"nats.fullnameOverride={LONG}")


@pytest.mark.parametrize(
    ("release", "sets"), [("r", ()), ("arvados-nats", ()), (LONG, (SHORT_NATS,))]
)
def test_services_connect_to_the_server_that_is_there(
    helm: Helm, release: str, sets: tuple[str, ...]
) -> None:
    """Our name for the NATS service is the nats chart's own."""
    rendered = helm.template("minimal", *sets, release=release)
    url = rendered.environment("publishers")["ARVADOS_NATS_NATS_URL"]
    assert url.removeprefix("nats://").removesuffix(":4222") in rendered.of("Service")


def test_an_external_nats_brings_no_server(helm: Helm) -> None:
    """Only our services, which go where they are told."""
    rendered = helm.template("external-nats")
    assert not rendered.of("StatefulSet")
    url = rendered.environment("wsproxy")["ARVADOS_NATS_NATS_URL"]
    assert url == "nats://nats-1.example.com:4222,nats://nats-2.example.com:4222"


def test_the_chart_can_be_part_of_another(helm: Helm, chart_copy: Path, tmp_path: Path) -> None:
    """Its schema bears `global` and `enabled`, which a parent sets."""
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: parent\nversion: 1.0.0\n")
    shutil.copytree(chart_copy, tmp_path / "charts" / "arvados-nats")
    example = (CHART / "ci" / "minimal-values.yaml").read_text().replace("\n", "\n  ")
    (tmp_path / "values.yaml").write_text(
        f"global: {{foo: 1}}\narvados-nats:\n  enabled: true\n  {example}"
    )
    assert Rendered(helm.run("template", "r", tmp_path)).of("Deployment")


@pytest.mark.parametrize(("example", "kind"), [("gateway", "HTTPRoute"), ("ingress", "Ingress")])
def test_sockets_come_in_at_the_host_of_the_external_url(
    helm: Helm, example: str, kind: str
) -> None:
    """The one URL names the host, and the backend is our service by its port."""
    rendered = helm.template(example)
    text = str(rendered.one(kind, "wsproxy")["spec"])
    assert "'ws.xurid.example.com'" in text
    assert "r-arvados-nats-wsproxy" in text
    assert "r-arvados-nats-wsproxy" in rendered.of("Service")
    assert not rendered.of({"Ingress": "HTTPRoute", "HTTPRoute": "Ingress"}[kind])


@pytest.mark.parametrize("example", ["gateway", "ingress", "minimal"])
def test_notes_say_which_line_of_arvados_to_change(helm: Helm, example: str) -> None:
    """The whole line, to be copied, and a warning where there is no address yet."""
    try:
        said = helm.run("install", "r", "--dry-run=client", *helm.arguments(example))
    except RefusedByHelm as error:
        pytest.fail(str(error))
    line = "Clusters.xurid.Services.Websocket.ExternalURL: wss://"
    host = "HOST" if example == "minimal" else "ws.xurid.example.com"
    assert f"     {line}{host}/websocket\n" in said
    assert ("wsproxy.externalURL is empty" in said) == (example == "minimal")
    assert "arvados-nats check grants" in said
