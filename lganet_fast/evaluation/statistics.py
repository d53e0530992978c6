"""Means, standard deviations and paired comparisons of methods over their common cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from ..volumes.grid import Array
from .scores import METRICS

ALPHA = 0.05  # below it a difference is called significant
Table = Mapping[str, Mapping[str, float]]  # case -> metric's key -> value


@dataclass(frozen=True)
class Comparison:
    """A comparison of another method with this one by one metric, over their common cases.

    difference: mean of the other's values minus this one's. p: of Wilcoxon's signed-rank test, two-
    sided; adjusted: by Holm's method over all methods compared. NaN if there is nothing to test.
    """

    cases: int
    difference: float
    p: float
    adjusted: float

    @property
    def significant(self) -> bool:
        """Whether the methods differ."""
        return self.adjusted < ALPHA


def column(rows: Table, key: str) -> Array:
    """A metric's known values over the cases."""
    values = np.array([row.get(key, math.nan) for row in rows.values()], float)
    return values[~np.isnan(values)]


def spread(rows: Table) -> dict[str, dict[str, float]]:
    """Mean, standard deviation (of the cases as a population) and number of cases per metric."""
    found = {metric.key: column(rows, metric.key) for metric in METRICS}
    return {
        key: {"mean": float(values.mean()), "std": float(values.std()), "cases": len(values)}
        for key, values in found.items()
        if len(values)
    }


def compare(own: Table, others: Mapping[str, Table]) -> dict[str, dict[str, Comparison]]:
    """Every other method against this one: method -> metric's key -> Comparison.

    Paired by case; only common cases count. Holm's correction is applied to one metric's tests over
    all methods (Demsar, 2006).
    """
    out: dict[str, dict[str, Comparison]] = {name: {} for name in others}
    for metric in (m for m in METRICS if m.better):
        pairs = {name: paired(own, rows, metric.key) for name, rows in others.items()}
        tests = {name: signed_rank(x, y) for name, (x, y) in pairs.items() if len(x)}
        adjusted = dict(zip(tests, holm(list(tests.values())), strict=True))
        for name, p in tests.items():
            x, y = pairs[name]
            out[name][metric.key] = Comparison(len(x), float((y - x).mean()), p, adjusted[name])
    return out


def paired(own: Table, other: Table, key: str) -> tuple[Array, Array]:
    """Both methods' values of a metric, paired by case."""
    both = [
        (row[key], other[case][key])
        for case, row in own.items()
        if case in other and key in row and key in other[case]
    ]
    values = np.array(both, float).reshape(-1, 2)
    known = values[~np.isnan(values).any(1)]
    return known[:, 0], known[:, 1]


def signed_rank(x: Array, y: Array) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (scipy.stats.wilcoxon); 1 where x equals y."""
    if not (x != y).any():
        return 1.0 if len(x) else math.nan
    return float(wilcoxon(x, y).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number, NaN left out (Holm, 1979)."""
    out = [math.nan] * len(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        out[i] = least
    return out
