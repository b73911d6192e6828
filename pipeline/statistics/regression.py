"""How good predictions of a number are: errors in its unit, the variance explained, correlations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.curves import pairs
from pipeline.statistics.groups import by_group, check_patients, numbers, owners
from pipeline.statistics.intervals import independent, named, ranks_of, transformed_interval
from pipeline.statistics.power import correlation_patients, needed

Array = NDArray[np.float64]


def evaluate_regression(
    values: ArrayLike,
    predictions: ArrayLike,
    patients: Sequence[str],
    *,
    sites: Sequence[str | None] | None = None,
    folds: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """Score predictions of a number, with 95 % intervals over patients.

    Intervals are on the scales where the statistics are nearly normal: logarithms of ``mae`` and ``rmse``,
    ``log(1 - R^2)``, Fisher's z of ``pearson`` and ``spearman``. The standard error is the larger of the patients'
    jackknife and that of normal data from so many patients: ``sqrt((pi / 2 - 1) / n)``, ``1 / sqrt(2 n)``,
    ``2 R / sqrt(n)``, ``1 / sqrt(n - 3)`` and ``sqrt((1 + r^2 / 2) / (n - 3))`` (Bonett & Wright 2000), where
    ``n = (sum m)^2 / sum m^2`` for patients of m slides. The one of ``rmse`` is short where errors have heavy tails:
    `benchmarks/score_intervals.py` measures how often these hold.

    Args:
        values: true values, (n,), in the label's unit.
        predictions: (n,), in the same.
        patients: whose slide it is, (n,).
        sites, folds: as for `evaluate`.

    Returns:
        ``{"slides", "patients", "mae", "rmse", "r2", "pearson", "spearman"}``, ``"curves"``: `pairs`,
        ``"patients_needed"`` (`needed`), and ``"sites"``, ``"folds"``: the scores of each. Each metric is ``{"value",
        "low", "high"}``, None where it is undefined: ``r2`` where all values, correlations where all values or all
        predictions, are the same; intervals of fewer than two patients, of correlations of fewer than four, and of
        errors that are all zero.

    Raises:
        ValueError: lengths differ, or a value is not a finite number.
    """
    check_patients(patients, len(patients))
    y = numbers(values, "values", shape=(len(patients),))
    x = numbers(predictions, "predictions", shape=(len(patients),))
    people = np.asarray(patients)

    def score(kept: NDArray[np.bool_]) -> dict[str, Any]:
        return _scores(y[kept], x[kept], owners(people[kept].tolist()))

    found = score(np.ones(len(y), bool))
    r = found["pearson"]["value"]
    more = needed("pearson", None if r is None else correlation_patients(r))
    found |= {"curves": {"pairs": pairs(y, x)}, "patients_needed": more}
    return found | by_group(score, {"sites": sites, "folds": folds})


def _scores(y: Array, x: Array, owner: NDArray[np.int64]) -> dict[str, Any]:
    n = independent(owner)
    r2, spearman = _r2(y, x), _spearman(y, x)
    few = math.sqrt(n - 3) if n > 3 else 0.0
    # the ranks' correlation is as far from 1 as half of the smallest disagreement of so many ranks
    end = 1 - 3 / (len(y) * (len(y) ** 2 - 1)) if len(y) > 1 else 0.0

    def told(
        statistic: Callable[[Array, Array], float],
        forth: Callable[[float], float],
        back: Callable[[float], float],
        normal_error: float,
        *,
        student: bool,
    ) -> dict[str, float | None]:
        value = statistic(y, x)
        if math.isnan(value):
            return named(None)
        if not math.isfinite(forth(value)):
            return named(value)
        return named(
            value,
            transformed_interval(
                value,
                lambda kept: statistic(y[kept], x[kept]),
                owner,
                forth=forth,
                back=back,
                normal_error=normal_error,
                student=student,
            ),
        )

    def z(end: float) -> Callable[[float], float]:
        return lambda r: math.atanh(min(max(r, -end), end)) if not math.isnan(r) else math.nan

    return {
        "slides": len(y),
        "patients": int(owner.max()) + 1,
        "mae": told(_mae, _log, math.exp, math.sqrt((math.pi / 2 - 1) / n), student=True),
        "rmse": told(_rmse, _log, math.exp, 1 / math.sqrt(2 * n), student=True),
        "r2": told(
            _r2,
            lambda r: _log(1 - r),
            lambda told: 1 - math.exp(told),
            2 * math.sqrt(max(r2, 0) / n) if not math.isnan(r2) else math.nan,
            student=True,
        ),
        "pearson": told(_pearson, z(1 - 1e-9), math.tanh, 1 / few if few else math.inf, student=False),
        "spearman": told(
            _spearman, z(end), math.tanh, math.sqrt(1 + spearman**2 / 2) / few if few else math.inf, student=False
        ),
    }


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan


def _mae(y: Array, x: Array) -> float:
    return float(np.abs(y - x).mean())


def _rmse(y: Array, x: Array) -> float:
    return float(np.sqrt(((y - x) ** 2).mean()))


def _r2(y: Array, x: Array) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - x) ** 2).sum()) / spread if spread > 0 else math.nan


def _pearson(y: Array, x: Array) -> float:
    a, b = y - y.mean(), x - x.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(float(a @ b) / size, -1, 1)) if size > 0 else math.nan


def _spearman(y: Array, x: Array) -> float:
    return _pearson(ranks_of(y), ranks_of(x))
