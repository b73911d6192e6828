"""How often the stated 95 % interval of an AUROC holds the true one, on cohorts of 8, 16 and 32 patients.

    python benchmarks/auroc_intervals.py [--cohorts 1000]       two minutes

Cohorts are drawn from models whose true AUROC is known: two normal distributions (`binormal`), positives or negatives
that spread twice as much (`wide positives`, `wide negatives`), exponential ones (`skewed`), normal scores read off a
scale of five steps (`tied`), and patients with four slides each, whose scores share 70 or 20 % of their variance. Half
or a quarter of the patients are positive. Of each cell: coverage in per cent and mean width, for the score interval of
`pipeline.statistics.ranking`, DeLong's on the logit scale, and the percentile bootstrap over patients (400 draws, a
tenth of the cohorts). A coverage of 95 has a standard error of 0.7 with 1 000 cohorts. Few patients give few possible
scores, so no interval can be exact: with four against four and a true AUROC of .95, 6 of 10 cohorts are perfect and
the next score is a sixteenth lower.

Then cross-validation: a classifier (along the difference of the class means) is fitted to three of four folds and
scores the fourth, and the truth is the mean AUROC of the four on new patients. Of each cell the mean of the pooled
AUROC and of that within folds (`ranked_within`) less the truth, and how often either's interval holds it. Ends with one
JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from pipeline.statistics.intervals import alikeness, auroc_interval, auroc_variance, independent
from pipeline.statistics.ranking import placements, ranked_within

Z = float(norm.ppf(0.975))
AUROCS, PATIENTS, SHARES = (0.6, 0.7, 0.8, 0.9, 0.95), (8, 16, 32), (0.5, 0.25)
BOOTSTRAP_DRAWS, BOOTSTRAP_SHARE = 400, 10
FOLDS, SHIFTS, FEATURES = 4, (1.0, 2.0, 3.0), 3
"""Of the cross-validation: the distance of the class means in standard deviations, and how many features there are."""

Array = NDArray[np.float64]
Model = Callable[[float, int, int, int, np.random.Generator], tuple[Array, Array]]
"""(AUROC, positives, negatives, cohorts, generator) -> scores of both, (cohorts, patients, slides)."""


def normal(positive_sd: float, negative_sd: float) -> Model:
    """Normal scores: ``AUROC = Phi(shift / sqrt(sd_1^2 + sd_0^2))``."""

    def draw(auroc: float, m: int, n: int, cohorts: int, rng: np.random.Generator) -> tuple[Array, Array]:
        shift = norm.ppf(auroc) * np.hypot(positive_sd, negative_sd)
        return rng.normal(shift, positive_sd, (cohorts, m, 1)), rng.normal(0, negative_sd, (cohorts, n, 1))

    return draw


def skewed(auroc: float, m: int, n: int, cohorts: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Exponential scores of means k and 1: ``AUROC = k / (1 + k)``."""
    return rng.exponential(auroc / (1 - auroc), (cohorts, m, 1)), rng.exponential(1, (cohorts, n, 1))


def tied(auroc: float, m: int, n: int, cohorts: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Normal scores on a scale of five steps, so far apart that wins and half of the ties make the AUROC."""

    def steps(shift: float) -> Array:
        return shift / 2 + np.array([-1.0, -0.3, 0.3, 1.0])

    def excess(shift: float) -> float:
        edges = np.concatenate([[-np.inf], steps(shift), [np.inf]])
        p, q = np.diff(norm.cdf(edges - shift)), np.diff(norm.cdf(edges))
        return float(p @ (np.cumsum(q) - q / 2)) - auroc

    shift = float(brentq(excess, 0, 20))
    positives, negatives = normal(1, 1)(0.5, m, n, cohorts, rng)
    return np.digitize(positives + shift, steps(shift)).astype(float), np.digitize(negatives, steps(shift)).astype(
        float
    )


def slides(shared: float) -> Model:
    """Four slides a patient, whose normal scores share a part of their variance."""

    def draw(auroc: float, m: int, n: int, cohorts: int, rng: np.random.Generator) -> tuple[Array, Array]:
        patients = normal(1, 1)(0.5, m, n, cohorts, rng)
        both = [np.sqrt(shared) * x + np.sqrt(1 - shared) * rng.normal(size=(cohorts, x.shape[1], 4)) for x in patients]
        return both[0] + norm.ppf(auroc) * np.sqrt(2), both[1]

    return draw


MODELS: dict[str, Model] = {
    "binormal": normal(1, 1),
    "wide positives": normal(2, 1),
    "wide negatives": normal(1, 2),
    "skewed": skewed,
    "tied": tied,
    "4 slides, 70 % shared": slides(0.7),
    "4 slides, 20 % shared": slides(0.2),
}


def wins(positives: Array, negatives: Array) -> Array:
    """Share of the slides' pairs that a positive patient wins against a negative one, (cohorts, m, n)."""
    p, q = positives[:, :, None, :, None], negatives[:, None, :, None, :]
    return ((p > q) + 0.5 * (p == q)).mean((3, 4))


def stated(positives: Array, negatives: Array, auroc: float) -> list[float]:
    """How often what the product states holds the truth, and how wide it is, by the first 50 cohorts.

    The truth lies in a score interval where it is within 1.96 of its own standard errors of what was seen.
    """
    cohorts, m, each = positives.shape
    owner = np.repeat(np.arange(m + negatives.shape[1]), each)
    positive = owner < m
    held, widths = [], []
    for one in np.concatenate([positives, negatives], 1).reshape(cohorts, -1):
        alike = alikeness(one, owner, positive)
        up, down = (x.reshape(-1, each).mean(1) for x in placements(positive, one))
        told = (independent(owner[positive], alike), independent(owner[~positive], alike))
        spread = (up.var(ddof=1), down.var(ddof=1))
        held.append(abs(up.mean() - auroc) <= Z * auroc_variance(auroc, *told, spread=spread) ** 0.5)
        if len(held) <= 50:
            widths.append(np.ptp(auroc_interval(up.mean(), *told, spread=spread)))
    return [float(np.mean(held)), float(np.mean(widths))]


def delong(won: Array) -> Array:
    """DeLong's interval on the logit scale, half a pair away from 0 and 1, and no less than a binomial of all pairs."""
    _, m, n = won.shape
    auroc = np.clip(won.mean((1, 2)), 0.5 / (m * n), 1 - 0.5 / (m * n))
    variance = won.mean(2).var(1, ddof=1) / m + won.mean(1).var(1, ddof=1) / n
    odds = auroc * (1 - auroc)
    half = Z * np.sqrt(np.maximum(variance, odds / (m * n))) / odds
    logit = np.log(auroc / (1 - auroc))
    return 1 / (1 + np.exp(-np.stack([logit - half, logit + half], 1)))


def bootstrap(won: Array, rng: np.random.Generator) -> Array:
    """Percentiles over patients drawn with replacement, each class by itself."""
    _, m, n = won.shape
    limits = []
    for one in won:
        p, q = (rng.multinomial(k, np.full(k, 1 / k), BOOTSTRAP_DRAWS) / k for k in (m, n))
        limits.append(np.quantile(((p @ one) * q).sum(1), (0.025, 0.975)))
    return np.array(limits)


def cells(cohorts: int, seed: int) -> Iterator[dict[str, object]]:
    """Every model, share of positives, number of patients and AUROC: coverage and mean width of each method."""
    rng = np.random.default_rng(seed)
    for model, draw in MODELS.items():
        for share in SHARES:
            for patients in PATIENTS:
                for auroc in AUROCS:
                    m = round(share * patients)
                    parts = [draw(auroc, m, patients - m, min(1000, cohorts), rng) for _ in range(-(-cohorts // 1000))]
                    won = np.concatenate([wins(*part) for part in parts])
                    limits = {
                        "delong": delong(won),
                        "bootstrap": bootstrap(won[:: max(1, min(BOOTSTRAP_SHARE, len(won) // 100))], rng),
                    }
                    found = {
                        name: [float(((x[:, 0] <= auroc) & (auroc <= x[:, 1])).mean()), float(np.ptp(x, 1).mean())]
                        for name, x in limits.items()
                    }
                    found["stated"] = np.mean([stated(*part, auroc) for part in parts], axis=0).tolist()
                    yield {"model": model, "positive": share, "patients": patients, "auroc": auroc, **found}


def folds(cohorts: int, seed: int) -> Iterator[dict[str, object]]:
    """Cross-validated cohorts: bias and coverage of the pooled AUROC and of the one within folds."""
    rng = np.random.default_rng(seed)
    for share in SHARES:
        for patients in PATIENTS:
            for shift in SHIFTS:
                positive = np.arange(patients) < round(share * patients)
                m = int(positive.sum())
                fold = np.concatenate([np.arange(m), np.arange(patients - m) + m]) % min(FOLDS, m)
                x = rng.normal(size=(cohorts, patients, FEATURES))
                x[:, positive, 0] += shift
                scores, truths = np.zeros((cohorts, patients)), []
                for k in np.unique(fold):
                    high, low = (x[:, (fold != k) & side].mean(1) for side in (positive, ~positive))
                    w = high - low
                    middle = ((high + low) / 2 * w).sum(1, keepdims=True)
                    scores[:, fold == k] = (x[:, fold == k] * w[:, None]).sum(2) - middle
                    truths.append(norm.cdf(w[:, 0] * shift / np.sqrt(2) / np.linalg.norm(w, axis=1)))
                truth, owner = np.mean(truths, 0), np.arange(patients)
                found: dict[str, object] = {"positive": share, "patients": patients, "auroc": float(truth.mean())}
                for name, groups in (("pooled", np.zeros(patients)), ("within folds", fold)):
                    told = np.array([ranked_within(positive, one, owner, groups.tolist()) for one in scores], float)
                    held = (told[:, 1] <= truth) & (truth <= told[:, 2])
                    found[name] = [float(held.mean()), float((told[:, 0] - truth).mean())]
                yield found


def summary(found: list[dict[str, object]], name: str) -> str:
    """A method over cells: the mean coverage, the worst, and how many are within 2 points of 95 %."""
    held = np.array([cell[name][0] for cell in found])  # type: ignore[index]
    near = np.abs(held - 0.95) <= 0.02
    return f"{name}: mean {held.mean():.1%}, from {held.min():.1%} to {held.max():.1%}, 95 ± 2 % in {near.mean():.0%}"


def main() -> None:
    """Print a line for every cell, and all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = []
    for cell in cells(arguments.cohorts, arguments.seed):
        found.append(cell)
        told = [f"{name} {x[0]:6.1%} ({x[1]:.2f})" for name, x in cell.items() if isinstance(x, list)]
        where = f"{cell['model']:>22}, {cell['positive']:.0%} of {cell['patients']:>2}, AUROC {cell['auroc']}"
        print(f"{where:<50} " + "  ".join(told), flush=True)
    for model in MODELS:
        print(f"{model}: {summary([c for c in found if c['model'] == model], 'stated')}")
    for name in ("stated", "delong"):
        print(f"all: {summary(found, name)}")
    crossed = []
    for cell in folds(arguments.cohorts, arguments.seed):
        crossed.append(cell)
        told = [f"{name} {x[0]:6.1%} ({x[1]:+.3f})" for name, x in cell.items() if isinstance(x, list)]
        where = f"{FOLDS} folds, {cell['positive']:.0%} of {cell['patients']:>2}, AUROC {cell['auroc']:.3f}"
        print(f"{where:<50} " + "  ".join(told), flush=True)
    for name in ("pooled", "within folds"):
        print(f"folds: {summary(crossed, name)}")
    print(json.dumps({"benchmark": "auroc_intervals", "cohorts": arguments.cohorts, "cells": found, "folds": crossed}))


if __name__ == "__main__":
    main()
