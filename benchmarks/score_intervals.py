"""How often stated 95 % intervals of other scores than the AUROC hold the true one, on 8, 16 and 32 patients.

    python benchmarks/score_intervals.py [--cohorts 1000]       three minutes

The C-index: survival with a hazard proportional to exp(strength * x) (`hazards`), log times that are linear in x with
normal errors (`normal`), three risk groups (`groups`), errors of log times that are larger where x is (`crossing`); x
is the risk, its strength such that the C-index is .6 to .95 (as far as that can be). Nobody is censored, or by an
exponential time of mean 2 or 1/2, or all at time 0.4. What a C-index tends to depends on who is censored: the truth is
that of 60 000 patients who are so. Beside it, the infinitesimal jackknife's interval on the logit scale. A cohort
without a comparable pair has no interval and does not count.

Grades: a normal grade and a prediction with a correlation of .5, .8 and .95, cut into 3 or 5 classes. Numbers: errors
that are normal, have a t distribution of 5 degrees of freedom, or are exponential, and leave 70 or 20 % of the
variance. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from pipeline.statistics.intervals import concordance_interval
from pipeline.statistics.ordinal import evaluate_ordinal, quadratic_kappa
from pipeline.statistics.regression import evaluate_regression
from pipeline.statistics.survival import concordance

Z = float(norm.ppf(0.975))
PATIENTS, INDICES = (8, 16, 32), (0.6, 0.7, 0.8, 0.9, 0.95)
SURVIVAL = ("hazards", "normal", "groups", "crossing")
CENSORING = {"none": np.inf, "mean 2": 2.0, "mean 1/2": 0.5, "at 0.4": -0.4}
SCORES = ("mae", "rmse", "r2", "pearson", "spearman")

Array = NDArray[np.float64]


def survival(
    model: str, strength: float, censoring: float, n: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_], Array]:
    """Times, events and risks of so many patients."""
    x = rng.integers(0, 3, n).astype(float) if model == "groups" else rng.normal(size=n)
    if model in ("hazards", "groups"):
        times = rng.exponential(size=n) * np.exp(-strength * x)
    else:
        spread = np.where(x > 0, 1.5, 0.5) if model == "crossing" else 1.0
        times = np.exp(spread * rng.normal(size=n) - strength * x)
    ends = np.full(n, -censoring) if censoring < 0 else rng.exponential(size=n) * censoring
    if np.isinf(censoring):
        ends = np.full(n, np.inf)
    return np.minimum(times, ends), times <= ends, x


def true_index(model: str, strength: float, censoring: float, parts: int) -> float:
    """The C-index of many patients, in parts of 600."""
    rng = np.random.default_rng(1)
    found = [concordance(*survival(model, strength, censoring, 600, rng)) for _ in range(parts)]
    return float(sum(one.ordered.sum() / 2 for one in found) / sum(one.pairs for one in found))


def logit_interval(times: Array, events: NDArray[np.bool_], risks: Array) -> tuple[float, float]:
    """The infinitesimal jackknife's, on the logit scale, half a pair away from 0 and 1."""
    first = (times[:, None] < times) | ((times[:, None] == times) & ~events)
    pairs = first & events[:, None]
    order = pairs * np.heaviside(risks[:, None] - risks, 0.5)
    count = pairs.sum()
    c = float(np.clip(order.sum() / count, 0.5 / count, 1 - 0.5 / count))
    adds = order.sum(0) + order.sum(1) - c * (pairs.sum(0) + pairs.sum(1))
    half = Z * np.sqrt((adds**2).sum()) / count / (c * (1 - c))
    low, high = 1 / (1 + np.exp(-(np.log(c / (1 - c)) + np.array([-half, half]))))
    return float(low), float(high)


def of_survival(cohorts: int, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Coverage and mean width of C-indices."""
    for model in SURVIVAL:
        for name, censoring in CENSORING.items():
            for index in INDICES:
                try:
                    strength = float(
                        brentq(lambda s, m=model, c=censoring, i=index: true_index(m, s, c, 6) - i, 0, 20, xtol=0.05)
                    )
                except ValueError:
                    continue  # no strength has it
                truth = true_index(model, strength, censoring, 100)
                for patients in PATIENTS:
                    limits: dict[str, list[tuple[float, float]]] = {"stated": [], "logit": []}
                    for _ in range(cohorts):
                        drawn = survival(model, strength, censoring, patients, rng)
                        found = concordance(*drawn)
                        if found.pairs:
                            limits["stated"].append(concordance_interval(*found))
                            limits["logit"].append(logit_interval(*drawn))
                    where = {"score": "c_index", "model": f"{model}, censored: {name}", "patients": patients}
                    yield {**where, "truth": truth, **{key: held(value, truth) for key, value in limits.items()}}


def of_grades(cohorts: int, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Coverage and mean width of kappa and the mean distance."""
    for grades in (3, 5):
        edges = norm.ppf(np.arange(1, grades) / grades)
        for alike in (0.5, 0.8, 0.95):

            def drawn(n: int, alike: float = alike, edges: Array = edges) -> tuple[Array, Array]:
                z = rng.normal(size=n)
                other = alike * z + np.sqrt(1 - alike**2) * rng.normal(size=n)
                return np.digitize(z, edges), np.digitize(other, edges)

            many = drawn(400_000)
            truths = {"kappa": quadratic_kappa(*many), "mae": float(np.abs(many[0] - many[1]).mean())}
            names = [str(i) for i in range(grades)]
            for patients in PATIENTS:
                people = [str(i) for i in range(patients)]
                limits: dict[str, list[tuple[float, float]]] = {key: [] for key in truths}
                for _ in range(cohorts // 4):
                    y, x = drawn(patients)
                    found = evaluate_ordinal(y, np.eye(grades)[x], people, names)
                    for key in truths:
                        if found[key]["low"] is not None:
                            limits[key].append((found[key]["low"], found[key]["high"]))
                for key, truth in truths.items():
                    where = {"score": key, "model": f"{grades} grades, {alike}", "patients": patients, "truth": truth}
                    yield {**where, "stated": held(limits[key], truth)}


def of_numbers(cohorts: int, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Coverage and mean width of regression's scores."""

    def errors(kind: str, n: int) -> Array:
        if kind == "normal":
            return rng.normal(size=n)
        return rng.standard_t(5, n) / np.sqrt(5 / 3) if kind == "t of 5" else rng.exponential(size=n) - 1

    for kind in ("normal", "t of 5", "exponential"):
        for left in (0.7, 0.2):

            def drawn(n: int, kind: str = kind, left: float = left) -> tuple[Array, Array]:
                y = rng.normal(size=n)
                return y, y - np.sqrt(left) * errors(kind, n)

            y, x = drawn(1_000_000)
            ranks = np.corrcoef(rankdata(y), rankdata(x))[0, 1]
            truths = (np.abs(y - x).mean(), left**0.5, 1 - left, np.corrcoef(y, x)[0, 1], ranks)
            for patients in PATIENTS:
                people = [str(i) for i in range(patients)]
                limits: dict[str, list[tuple[float, float]]] = {key: [] for key in SCORES}
                for _ in range(cohorts):
                    found = evaluate_regression(*drawn(patients), people)
                    for key in SCORES:
                        limits[key].append((found[key]["low"], found[key]["high"]))
                for key, truth in zip(SCORES, truths, strict=True):
                    where = {"score": key, "model": f"{kind} errors, {left:.0%} left", "patients": patients}
                    yield {**where, "truth": float(truth), "stated": held(limits[key], float(truth))}


def held(limits: list[tuple[float, float]], truth: float) -> list[float]:
    """How often intervals hold the truth, and how wide they are."""
    ends = np.array(limits)
    return [float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()), float(np.ptp(ends, 1).mean())]


def main() -> None:
    """Print a line for every cell, a summary of each score, and all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    found = []
    for kind in (of_survival, of_grades, of_numbers):
        for cell in kind(arguments.cohorts, rng):
            found.append(cell)
            told = [f"{name} {x[0]:6.1%} ({x[1]:.2f})" for name, x in cell.items() if isinstance(x, list)]
            where = f"{cell['score']}, {cell['model']}, {cell['patients']} patients, truth {cell['truth']:.3f}"
            print(f"{where:<66} " + "  ".join(told), flush=True)
    for score in dict.fromkeys(cell["score"] for cell in found):
        for name in ("stated", "logit"):
            cover = np.array([x[0] for c in found if c["score"] == score and isinstance(x := c.get(name), list)])
            if len(cover):
                print(
                    f"{score}, {name}: mean {cover.mean():.1%}, from {cover.min():.1%} to {cover.max():.1%}, "
                    f"95 ± 2 % in {(np.abs(cover - 0.95) <= 0.02).mean():.0%}"
                )
    print(json.dumps({"benchmark": "score_intervals", "cohorts": arguments.cohorts, "cells": found}))


if __name__ == "__main__":
    main()
