# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of all benchmarks: percentiles of one round, medians over rounds, ratios. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

Figures = dict[str, float]


RATIOS = {
    "ratio_p50": "p50_ms",
    "ratio_p99": "p99_ms",
    "ratio_deliveries": "deliveries_per_second",
    "ratio_frames_per_cpu": "frames_per_cpu_s",
    "ratio_frames_per_all_cpu": "frames_per_all_cpu_s",
    "ratio_memory": "rss_mib",
}
"""Ratios that every benchmark with a peer tells as far as both sides have the figure."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def delays(seconds: Sequence[float], prefix: str = "") -> Figures:
    """p50, p99 and the largest of these delays, in milliseconds."""
    if not seconds:
        return {}
    return {
        f"{prefix}p50_ms": round(percentile(seconds, 0.5) * 1000, 2),
        f"{prefix}p99_ms": round(percentile(seconds, 0.99) * 1000, 2),
        f"{prefix}max_ms": round(max(seconds) * 1000, 2),
    }


def medians(rounds: Sequence[Mapping[str, float]], prefix: str = "") -> Figures:
    """The median of each figure over the rounds that have it."""
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {
        f"{prefix}{name}": rounded(
            statistics.median(figures[name] for figures in rounds if name in figures)
        )
        for name in names
    }


def ratio(ours: float, theirs: float) -> float | None:
    """Ours over the peer's; None where the peer has none."""
    return round(ours / theirs, 3) if theirs else None


def rounded(value: float) -> float:
    """Four digits, and whole numbers as they are."""
    return value if isinstance(value, int) or not value else float(f"{value:.4g}")


def lines(figures: Mapping[str, object]) -> Iterable[str]:
    """For people: one figure a line."""
    return (f"  {name:44} {value}" for name, value in figures.items())
