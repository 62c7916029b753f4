# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Write what the chart says a second time: `python tools/make_chart.py`.

helm/arvados-nats/README.md comes from its template and values.yaml, where each `# -- text` line
above a key is a row. In values.schema.json the names below `<component>.settings` come from the
settings classes; the rest of it is written by hand. helm/nats-values.yaml is the map `nats` for a
release of the official chart alone. Tests hold all equal to what this makes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from arvados_nats.service.settings import Block
from authcallout.settings import Settings as CalloutSettings
from publishers.settings import Settings as PublisherSettings
from wsproxy.settings import Settings as ProxySettings

CHART = Path(__file__).parents[1] / "helm" / "arvados-nats"
COMPONENTS: dict[str, type[Block]] = {
    "authcallout": CalloutSettings,
    "publishers": PublisherSettings,
    "wsproxy": ProxySettings,
}
GIVEN = {
    "arvados_api_host", "arvados_api_host_insecure", "arvados_ca_file", "drain_seconds", "keys_dir",
    "leisure_seconds", "listen", "log_token", "management_token", "nats_url", "ops_listen",
    "postgres_dsn", "secrets_dir", "tls_certificate", "tls_key",
}  # fmt: skip
"""Settings that the chart gives by itself, or that make no sense in a pod."""
_TEXTS = {
    "integer": "^[0-9]+$",
    "number": "^[0-9]*[.]?[0-9]+$",
    "boolean": "^(true|false|yes|no|on|off)$",
}
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_WIDTH = 130
_KEY = re.compile(r"( *)(\w+):")
_TEXT = re.compile(r" *# -- (.*)")

_NATS_HEAD = """\
# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
#
# Written by tools/make_chart.py from helm/arvados-nats/values.yaml; do not edit. For a release of
# the official NATS chart alone, in our namespace; ours then has nats.enabled: false.
"""

_ROUTES_POLICY = """\
# Whoever opens a route to a NATS server is a member with all rights.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .Release.Name }}-routes
spec:
  podSelector: &servers
    matchLabels:
      app.kubernetes.io/component: nats
      app.kubernetes.io/instance: {{ .Release.Name }}
  policyTypes: [Ingress]
  ingress:
    - ports: [{port: {{ .Values.config.cluster.port }}, protocol: TCP}]
      from: [{podSelector: *servers}]
    - ports:
        - {port: 1, endPort: {{ sub .Values.config.cluster.port 1 }}, protocol: TCP}
        - {port: {{ add .Values.config.cluster.port 1 }}, endPort: 65535, protocol: TCP}
"""

Row = tuple[str, str]
"""A dotted path and what it is for."""


def rows() -> Iterator[Row]:
    """Every key with a text, in the order of the file."""
    path: list[tuple[int, str]] = []
    text = ""
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        if found := _TEXT.match(line):
            text = found[1]
        elif found := _KEY.match(line):
            depth = len(found[1])
            path = [part for part in path if part[0] < depth] + [(depth, found[2])]
            if text:
                yield ".".join(name for _, name in path), text
            text = ""


def page() -> str:
    """The text of README.md."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    found = list(rows())
    shared = {key.partition(".")[2] for key, _ in found if key.startswith("authcallout.")}
    general = [row for row in found if row[0].partition(".")[0] not in COMPONENTS]
    own = [
        (key, text)
        for key, text in found
        if key.startswith("wsproxy.") and key.partition(".")[2] not in shared
    ]
    each = [(key, text) for key, text in found if key.startswith("authcallout.")]
    template = (CHART / "README.md.tmpl").read_text(encoding="utf-8")
    return template.format(
        general=_table(general, values),
        wsproxy=_table(own, values),
        component=_table(each, values).replace("`authcallout.", "`<component>."),
    )


def _table(found: list[Row], values: dict[str, Any]) -> str:
    lines = ["| value | default | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {_default(key, values)} | {text} |" for key, text in found]
    return "\n".join(lines)


def _default(key: str, values: Any) -> str:
    for name in key.split("."):
        values = values[name]
    return "" if values in ("", None) else f"`{json.dumps(values)}`"


def schema() -> str:
    """The text of values.schema.json, with the settings as they are now."""
    known = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    for component, settings in COMPONENTS.items():
        told = settings.model_json_schema(by_alias=False)["properties"]
        known["properties"][component]["properties"]["settings"]["properties"] = {
            _camel(name): _setting(told[name])
            for name in settings.model_fields
            if name not in GIVEN
        }
    return _compact(known) + "\n"


def _setting(told: dict[str, Any]) -> dict[str, Any]:
    """What a setting can be: itself, or the text of it, which its variable is in the end."""
    told = next(iter(told.get("anyOf", ())), told)
    pattern = _TEXTS.get(told.get("type", ""))
    if pattern is None:
        return {"type": ["string", "number", "boolean"]}
    bounds = {name: told[name] for name in _BOUNDS if name in told}
    return {"type": [told["type"], "string"], "pattern": pattern, **bounds}


def _compact(value: Any, indent: str = "") -> str:
    """JSON in which whatever fits into a line stands in one."""
    line = json.dumps(value)
    if len(indent) + len(line) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_compact(item, inner)}" for key, item in value.items()]
    else:
        parts = [_compact(item, inner) for item in value]
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"


def nats_values() -> str:
    """The text of nats-values.yaml: the same servers as a release of their own."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["nats"]
    alone = {
        "global": {"nkeysSecret": "arvados-nats-nkeys"},
        **{name: value for name, value in values.items() if name != "enabled"},
        "extraResources": [{"$tplYaml": _ROUTES_POLICY}],
    }
    text = yaml.dump(alone, Dumper=_NoAliases, sort_keys=False, width=120)
    return _NATS_HEAD + str(text)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


if __name__ == "__main__":
    for path, text in (
        (CHART / "README.md", page()),
        (CHART / "values.schema.json", schema()),
        (CHART.parent / "nats-values.yaml", nats_values()),
    ):
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path} written\n")
