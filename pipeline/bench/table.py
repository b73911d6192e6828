"""The table of a bench: of each way and setting what it costs, how good it is, and how near to reading everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.slide import mean_spent
from pipeline.bench.ways import DECIDE, EVERYTHING
from pipeline.statistics.metrics import evaluate
from pipeline.statistics.paired import auroc_difference

BOOTSTRAPS = 2000
"""Samples of the patients from which an interval over slides is told."""


class Person(NamedTuple):
    """What the cohort table says of a slide: whose it is, and its class where it is known."""

    patient: str
    label: str | None


def table_of(
    records: Sequence[Mapping[str, Any]], people: Sequence[Person], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """The table's rows, a way and a setting each.

    ``difference`` is the mean over slides and draws of ``1/2 sum_c |p_c - p*_c|`` to reading everything, p*: of two
    classes ``|p - p*|``. Its interval is the percentile bootstrap's over patients. ``agreement`` is the share of slides
    and draws with the same predicted class: of two classes, the same side of .5. Every draw reads the cohort once:
    AUROC is the mean over these, with the mean ends of their 95 % intervals (patients as in `evaluate`); ``auroc_5``
    and ``auroc_95`` are quantiles over them, which is reading alone.

    Args:
        records: see `bench_slide`, all of the same ways.
        people: of the same slides.
        classes: in the order of the probabilities.
    """
    every = _predicted(records, [one["name"] for one in records[0]["ways"]].index(EVERYTHING))[:, 0]
    survey, patch = mean_spent(records, "survey"), mean_spent(records, "patch")
    fixed = float(np.mean([record["fixed_bytes"] for record in records]))
    judged = len({person.label for person in people} - {None}) > 1
    rows = []
    for place, way in enumerate(records[0]["ways"]):
        p = _predicted(records, place)  # (slides, draws, C)
        apart = 0.5 * np.abs(p - every[:, None]).sum(2)
        patches = float(np.mean([record["ways"][place]["patches"] for record in records]))
        low, high = _over_patients(apart.mean(1), [person.patient for person in people])
        same = p.argmax(2) == every.argmax(1)[:, None]
        row: dict[str, Any] = {
            "way": way["name"],
            "setting": way["setting"],
            "slides": len(records),
            "draws": p.shape[1],
            "patches": patches,
            "bytes": fixed + float(np.mean([record["ways"][place]["bytes"] for record in records])),
            "difference": float(apart.mean()),
            "difference_low": low,
            "difference_high": high,
            "agreement": float(same.mean()),
            "decisions": int(same.size),
            **(_aurocs(p, every, people, classes) if judged else {}),
        }
        if way["name"] == DECIDE:
            row["undecided"] = float(np.mean([record["ways"][place]["undecided"] for record in records]))
        if survey is not None and patch is not None:
            row["seconds"] = survey.seconds + patches * patch.seconds
            row["cpu_seconds"] = survey.cpu_seconds + patches * patch.cpu_seconds
            if survey.wh is not None and patch.wh is not None:
                row["wh"] = survey.wh + patches * patch.wh
        rows.append(row)
    return rows


def _predicted(records: Sequence[Mapping[str, Any]], place: int) -> NDArray[np.float64]:
    """Probabilities (slides, draws, C); slides of one draw, as those that are read whole, give the same in all."""
    each = [np.asarray(record["ways"][place]["probabilities"], np.float64) for record in records]
    most = max(len(one) for one in each)
    return np.stack([one if len(one) == most else np.broadcast_to(one[:1], (most, one.shape[1])) for one in each])


def _aurocs(
    p: NDArray[np.float64], every: NDArray[np.float64], people: Sequence[Person], classes: Sequence[str]
) -> dict[str, Any]:
    known = [place for place, person in enumerate(people) if person.label is not None]
    labels = [str(people[place].label) for place in known]
    patients = [people[place].patient for place in known]
    found = [evaluate(labels, p[known, draw], patients, classes)["auroc"] for draw in range(p.shape[1])]
    value, low, high = (np.array([one[end] for one in found], np.float64) for end in ("value", "low", "high"))
    numbers = [classes.index(label) for label in labels]
    gaps = [auroc_difference(numbers, p[known, d], every[known], patients) for d in range(p.shape[1])]
    told = [gap for gap in gaps if gap is not None and gap.low is not None and gap.high is not None]
    return {
        "auroc": float(value.mean()),
        "auroc_low": float(low.mean()),  # NaN where patients are too few, which is written as none
        "auroc_high": float(high.mean()),
        "auroc_5": float(np.quantile(value, 0.05)),
        "auroc_95": float(np.quantile(value, 0.95)),
        "auroc_minus_everything": float(np.mean([gap.value for gap in gaps if gap is not None])),
        "auroc_minus_everything_low": float(np.mean([gap.low for gap in told])) if len(told) == len(gaps) else None,
        "auroc_minus_everything_high": float(np.mean([gap.high for gap in told])) if len(told) == len(gaps) else None,
    }


def _over_patients(values: NDArray[np.float64], patients: Sequence[str]) -> tuple[float | None, float | None]:
    """The 95 % percentile bootstrap's interval of a mean over slides, drawn by patient; None of a single one."""
    _, owner = np.unique(np.asarray(patients), return_inverse=True)
    count = int(owner.max()) + 1
    if count < 2:
        return None, None
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=BOOTSTRAPS)[:, owner]
    means = (times @ values) / times.sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table as lines of text."""
    energy = any("wh" in row for row in rows)
    head = f"{'':18}{'patches':>9}{'MB':>8}{'s':>7}{'CPU s':>7}"
    lines = [f"{head}{'Wh' if energy else '':>8}{'AUROC':>22}{'|p - p*|':>10}{'decisions alike':>17}"]
    for row in rows:
        name = row["way"] if row["setting"] is None else f"{row['way']} {row['setting']:g}"
        cost = f"{row['patches']:9.1f}{row['bytes'] / 1e6:8.2f}{_number(row, 'seconds', '7.2f')}"
        cost += f"{_number(row, 'cpu_seconds', '7.2f')}{_number(row, 'wh', '8.5f') if energy else ' ' * 8}"
        lines.append(f"{name:18}{cost}{_auroc(row):>22}{row['difference']:10.4f}{row['agreement']:17.1%}")
    return lines


def _auroc(row: Mapping[str, Any]) -> str:
    if row.get("auroc") is None:
        return "-"
    told = f"{row['auroc']:.3f}"
    low, high = row["auroc_low"], row["auroc_high"]
    return told if np.isnan([low, high]).any() else f"{told} [{low:.3f}, {high:.3f}]"


def _number(row: Mapping[str, Any], name: str, form: str) -> str:
    width = int(form.split(".")[0])
    return f"{'-':>{width}}" if row.get(name) is None else format(row[name], form)
