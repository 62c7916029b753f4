# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Traces arrive at a collector that speaks OTLP over HTTP, and cost nothing where there is none."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from arvados_nats.errors import ConfigError
from arvados_nats.service import process, tracing
from arvados_nats.service.settings import OpsSettings
from sandbox.servers import ports
from tests.support.fronts import otlp_collector
from tests.support.fronts.otlp_collector import Collector, facts


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A real receiver on loopback."""
    with otlp_collector.run() as running:
        yield running


def test_spans_arrive_with_what_was_found_out(collector: Collector) -> None:
    """A child under its parent, facts that were known and facts that were learnt."""
    with (
        tracing.exported(collector.url, "arvados-nats-test", 1.0),
        tracing.span("whole", uuid="zzzzz-tpzed-000000000000000"),
    ):
        with tracing.span("part"):
            tracing.note(outcome="found", count=3)
    assert collector.services == {"arvados-nats-test"}
    whole, part = collector.named("whole"), collector.named("part")
    assert part.parent_span_id == whole.span_id
    assert part.trace_id == whole.trace_id
    assert facts(whole) == {"uuid": "zzzzz-tpzed-000000000000000"}
    assert facts(part) == {"outcome": "found", "count": 3}


def test_what_began_elsewhere_has_its_own_times(collector: Collector) -> None:
    """A row is as old as Arvados says."""
    with tracing.exported(collector.url, "test", 1.0):
        tracing.record("row stored", 1000.25, 1002.5, row_uuid="u")
    span = collector.named("row stored")
    assert span.start_time_unix_nano == 1_000_250_000_000
    assert span.end_time_unix_nano == 1_002_500_000_000


def test_an_error_passes_and_its_text_stays_here(collector: Collector) -> None:
    """Texts of errors belong into logs, which somebody cares for."""
    with (
        tracing.exported(collector.url, "test", 1.0),
        pytest.raises(ConfigError),
        tracing.span("failing"),
    ):
        raise ConfigError("nobody may read this")
    assert b"nobody may read this" not in collector.named("failing").SerializeToString()


def test_a_share_of_nothing_sends_nothing(collector: Collector) -> None:
    """Also no part of a trace."""
    with tracing.exported(collector.url, "test", 0.0):
        for _ in range(100):
            with tracing.span("whole"), tracing.span("part"):
                pass
    assert collector.spans == []


def test_a_service_is_traced_while_it_runs(collector: Collector) -> None:
    """From its settings; what it did is sent before it ends, and its room is its name."""

    class Settings(OpsSettings):
        pass

    async def main(settings: Settings) -> None:
        with tracing.span("served"):
            pass

    code = process.run(main, lambda: Settings(traces_url=collector.url, traces_share=1.0))
    assert code == 0
    assert collector.named("served")
    assert collector.services == {"arvados-nats-tests"}
    assert not tracing.on()


def test_a_collector_that_is_away_stops_nothing() -> None:
    """Its spans are lost, and the end does not wait for long."""
    nowhere = f"http://127.0.0.1:{next(ports.candidates())}/v1/traces"
    began = time.monotonic()
    with tracing.exported(nowhere, "test", 1.0), tracing.span("lost"):
        pass
    assert time.monotonic() - began < 10


def test_without_a_collector_nothing_is_loaded() -> None:
    """A service that is not traced does not even import the SDK."""
    program = (
        "import sys; from arvados_nats.service import process, tracing\n"
        "import publishers.main, authcallout.main, wsproxy.main\n"
        "with tracing.exported('', 'x', 1.0), tracing.span('a', b=1): tracing.note(c=2)\n"
        "assert not {'opentelemetry.sdk', 'opentelemetry.exporter'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_a_collector_a_span_costs_next_to_nothing() -> None:
    """Far less than a microsecond on any machine; ten times that is a mistake and not noise."""

    def spans() -> float:
        began = time.perf_counter()
        for _ in range(20_000):
            with tracing.span("a", uuid="b"):
                pass
        return (time.perf_counter() - began) / 20_000

    assert min(spans() for _ in range(5)) < 5e-6


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(ConfigError, match=r"traces_url: install arvados-nats\[server,otel\]"),
        tracing.exported("http://127.0.0.1:1", "test", 1.0),
    ):
        raise AssertionError("nothing is traced")


SILENCE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import asyncio, httpx
from starlette.applications import Starlette
from arvados_nats.service import ops

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)

async def ask():
    app = Starlette()
    ops.add_routes(app, ops.Health(), lambda: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        assert (await client.get("/metrics?api_token=secret")).status_code == 404

asyncio.run(ask())
assert not spans.get_finished_spans()
trace.get_tracer("x").start_span("y").end()
assert spans.get_finished_spans()
"""


def test_requests_are_told_to_nobody() -> None:
    """No library hands out the query string, which may hold a token."""
    done = subprocess.run([sys.executable, "-c", SILENCE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
