# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Traces by OpenTelemetry: what one row, one login, one replay spent its time on.

Off unless a collector is named: then the SDK is not even loaded, and a span is one test of
a name. The rooms say `span` around work, `note` for what they learn in it, and `record` for what
began elsewhere. A span holds uuids and outcomes, never a token, and never the text of an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from arvados_nats.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_EXPORT_SECONDS = 2
_NANOSECONDS = 1_000_000_000

_tracer: Tracer | None = None
_NOTHING: AbstractContextManager[None] = nullcontext()

Fact = str | int | float | bool


@contextmanager
def exported(url: str, service: str, share: float) -> Iterator[None]:
    """Send this share of all traces to a collector (OTLP over HTTP) while the body runs.

    Nothing where `url` is empty; ConfigError where OpenTelemetry is not installed. A collector that
    is away loses its spans and stops nothing.
    """
    global _tracer  # one process, one tracer: as with metrics, who measures need not be given it
    if not url:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise ConfigError("traces_url: install arvados-nats[server,otel] to send traces") from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}),
        sampler=ParentBased(TraceIdRatioBased(share)),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint=url, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("arvados_nats")
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


def on() -> bool:
    """Whether anything is traced: ask before a loop that would only feed `record`."""
    return _tracer is not None


def span(name: str, **facts: Fact) -> AbstractContextManager[object]:
    """A span around a block; spans begun inside are its children."""
    if _tracer is None:
        return _NOTHING
    return _tracer.start_as_current_span(
        name, attributes=facts, record_exception=False, set_status_on_exception=False
    )


def note(**facts: Fact) -> None:
    """Add what was found out to the span we are in."""
    if _tracer is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes(facts)


def record(name: str, began: float, ended: float, **facts: Fact) -> None:
    """A span of its own from one time to another, in seconds since 1970."""
    if _tracer is not None:
        found = _tracer.start_span(name, attributes=facts, start_time=int(began * _NANOSECONDS))
        found.end(int(ended * _NANOSECONDS))
