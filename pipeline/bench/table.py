"""The table of a bench: of each way and setting what it costs, how good it is, and how near to reading everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.slide import mean_spent
from pipeline.bench.ways import DECIDE, EVERYTHING
from pipeline.task.task import Task

BOOTSTRAPS = 2000
"""Samples of the patients from which an interval over slides is told."""


class Person(NamedTuple):
    """What the cohort table says of a slide: whose it is, and its label, as `Task.label_row` has it, where known."""

    patient: str
    label: Mapping[str, Any] | None


def table_of(records: Sequence[Mapping[str, Any]], people: Sequence[Person], task: Task) -> list[dict[str, Any]]:
    """The table's rows, a way and a setting each.

    ``difference`` is the mean over slides and draws of how far a prediction is from that of reading everything, p*
    (`Task.apart`): of two classes ``|p - p*|``, of numbers that in their unit. Its interval is the percentile
    bootstrap's over patients. ``agreement`` is the share of slides and draws that come to the same (`Task.alike`): the
    same class, of two the same side of .5. Every draw reads the cohort once: the task's first metric, such as
    ``auroc``, is the mean over these, with the mean ends of their 95 % intervals; ``auroc_5`` and ``auroc_95`` are
    quantiles over them, which is reading alone.

    Args:
        records: see `bench_slide`, all of the same ways.
        people: of the same slides.
        task: what is predicted.
    """
    every = _predicted(records, [one["name"] for one in records[0]["ways"]].index(EVERYTHING))[:, 0]
    survey, patch = mean_spent(records, "survey"), mean_spent(records, "patch")
    fixed = float(np.mean([record["fixed_bytes"] for record in records]))
    judged = _is_told(every, people, task)
    rows = []
    for place, way in enumerate(records[0]["ways"]):
        p = _predicted(records, place)  # (slides, draws, T)
        apart = task.apart(p, every[:, None])
        patches = float(np.mean([record["ways"][place]["patches"] for record in records]))
        low, high = _over_patients(apart.mean(1), [person.patient for person in people])
        same = task.alike(p, every[:, None])
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
            **(_scored(p, every, people, task) if judged else {}),
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
    """Values (slides, draws, T); slides of one draw, as those that are read whole, give the same in all."""
    each = [np.asarray(record["ways"][place]["values"], np.float64) for record in records]
    most = max(len(one) for one in each)
    return np.stack([one if len(one) == most else np.broadcast_to(one[:1], (most, one.shape[1])) for one in each])


def _rows(values: NDArray[np.float64], people: Sequence[Person], task: Task) -> list[dict[str, Any]]:
    """Of the slides whose label is known, what `Task.evaluate` takes of values (slides, T)."""
    return [
        {**person.label, **dict(zip(task.columns, one, strict=True))}
        for person, one in zip(people, values.tolist(), strict=True)
        if person.label is not None
    ]


def _is_told(every: NDArray[np.float64], people: Sequence[Person], task: Task) -> bool:
    """Whether labels tell the task's first metric."""
    patients = [person.patient for person in people if person.label is not None]
    return bool(patients) and task.evaluate(_rows(every, people, task), patients)[task.metric.key]["value"] is not None


def _scored(p: NDArray[np.float64], every: NDArray[np.float64], people: Sequence[Person], task: Task) -> dict[str, Any]:
    patients = [person.patient for person in people if person.label is not None]
    key, whole = task.metric.key, _rows(every, people, task)
    draws = [_rows(p[:, draw], people, task) for draw in range(p.shape[1])]
    found = [task.evaluate(rows, patients)[key] for rows in draws]
    value, low, high = (np.array([one[end] for one in found], np.float64) for end in ("value", "low", "high"))
    gaps = [task.difference(rows, whole, patients) for rows in draws]
    told = [gap for gap in gaps if gap is not None and gap.low is not None and gap.high is not None]
    return {
        key: float(value.mean()),
        f"{key}_low": float(low.mean()),  # NaN where patients are too few, which is written as none
        f"{key}_high": float(high.mean()),
        f"{key}_5": float(np.quantile(value, 0.05)),
        f"{key}_95": float(np.quantile(value, 0.95)),
        f"{key}_minus_everything": float(np.mean([gap.value for gap in gaps if gap is not None])),
        f"{key}_minus_everything_low": float(np.mean([gap.low for gap in told])) if len(told) == len(gaps) else None,
        f"{key}_minus_everything_high": float(np.mean([gap.high for gap in told])) if len(told) == len(gaps) else None,
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


def in_words(rows: Sequence[Mapping[str, Any]], task: Task) -> list[str]:
    """The table as lines of text."""
    energy = any("wh" in row for row in rows)
    head = f"{'':18}{'patches':>9}{'MB':>8}{'s':>7}{'CPU s':>7}"
    lines = [f"{head}{'Wh' if energy else '':>8}{task.metric.name:>22}{'|p - p*|':>10}{'alike':>8}"]
    for row in rows:
        name = row["way"] if row["setting"] is None else f"{row['way']} {row['setting']:g}"
        cost = f"{row['patches']:9.1f}{row['bytes'] / 1e6:8.2f}{_number(row, 'seconds', '7.2f')}"
        cost += f"{_number(row, 'cpu_seconds', '7.2f')}{_number(row, 'wh', '8.5f') if energy else ' ' * 8}"
        lines.append(
            f"{name:18}{cost}{_score(row, task.metric.key):>22}{row['difference']:10.4f}{row['agreement']:8.1%}"
        )
    return lines


def _score(row: Mapping[str, Any], key: str) -> str:
    if row.get(key) is None:
        return "-"
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return f"{row[key]:.3f}" + ("" if np.isnan([low, high]).any() else f" [{low:.3f}, {high:.3f}]")


def _number(row: Mapping[str, Any], name: str, form: str) -> str:
    width = int(form.split(".")[0])
    return f"{'-':>{width}}" if row.get(name) is None else format(row[name], form)
