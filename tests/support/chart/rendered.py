# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Helm, and what it makes of the chart: objects, and the pods in them."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "arvados-nats"
TOOLS = Path(os.environ.get("ARVADOS_NATS_TOOLS") or Path.home() / ".cache" / "arvados-nats")
"""Where `.ci/prepare` puts Helm and promtool."""
EXAMPLES = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*.yaml"))
COMPONENTS = ("authcallout", "publishers", "wsproxy")

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod's specification, and the object that makes it."""

    owner: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]

    @property
    def ours(self) -> bool:
        """Made by our templates, not by the nats chart's."""
        return self.labels.get("app.kubernetes.io/component") != "nats"


class Rendered:
    """What the chart makes of values."""

    def __init__(self, text: str) -> None:
        self.text = text
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.objects: list[Object] = [found for found in yaml.load_all(text, loader) if found]

    def of(self, kind: str) -> dict[str, Object]:
        """Name -> object."""
        return {found["metadata"]["name"]: found for found in self.objects if found["kind"] == kind}

    def one(self, kind: str, suffix: str) -> Object:
        """The object whose name ends so."""
        (found,) = (thing for name, thing in self.of(kind).items() if name.endswith(suffix))
        return found

    @property
    def pods(self) -> Iterator[Pod]:
        for found in self.objects:
            if found["kind"] == "Pod":
                yield Pod(_title(found), found["metadata"]["labels"], found["spec"])
            elif found["kind"] in ("Deployment", "StatefulSet", "Job"):
                made = found["spec"]["template"]
                names = [
                    c["metadata"]["name"] for c in found["spec"].get("volumeClaimTemplates", [])
                ]
                claims = [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in names]
                spec = {**made["spec"], "volumes": [*made["spec"].get("volumes", []), *claims]}
                yield Pod(_title(found), made["metadata"]["labels"], spec)

    def pod(self, component: str) -> Pod:
        """The pod of a component."""
        (found,) = (
            pod for pod in self.pods if pod.labels.get("app.kubernetes.io/component") == component
        )
        return found

    def environment(self, component: str) -> dict[str, str]:
        """What a component's own container is told."""
        return {
            item["name"]: item["value"]
            for item in self.pod(component).spec["containers"][0]["env"]
            if "value" in item
        }

    @property
    def nats_conf(self) -> str:
        text: str = self.one("ConfigMap", "-config")["data"]["nats.conf"]
        return text


def _title(found: Object) -> str:
    return f"{found['kind']} {found['metadata']['name']}"


class RefusedByHelm(Exception):
    """Helm failed; the text is what it said."""


class Helm:
    """One version of Helm on one copy of the chart."""

    def __init__(self, program: Path, chart: Path) -> None:
        self._program = program
        self._chart = chart
        self._template = functools.cache(self._uncached_template)

    def run(self, *arguments: str | Path) -> str:
        """Standard output; `RefusedByHelm` with what went wrong."""
        done = subprocess.run(
            [self._program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": os.defpath, "HOME": str(self._chart.parent), "KUBECONFIG": os.devnull},
        )
        if done.returncode:
            raise RefusedByHelm(done.stdout + done.stderr)
        return done.stdout

    def template(self, example: str, *sets: str, release: str = "r") -> Rendered:
        """The chart with a file of `ci/` and `--set` values; the same call is run once."""
        return self._template(example, sets, release)

    def _uncached_template(self, example: str, sets: tuple[str, ...], release: str) -> Rendered:
        return Rendered(self.run("template", release, *self.arguments(example, *sets)))

    def arguments(self, example: str, *sets: str) -> list[str | Path]:
        """The chart and its values, for any command."""
        values = CHART / "ci" / f"{example}-values.yaml"
        return [self._chart, "-f", values, *(part for each in sets for part in ("--set", each))]

    def refusal(self, example: str, *sets: str) -> str:
        """What Helm says when it must refuse."""
        try:
            self.run("template", "r", *self.arguments(example, *sets))
        except RefusedByHelm as error:
            return str(error)
        raise AssertionError(f"{example} with {sets} was accepted")
