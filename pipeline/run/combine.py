"""Patients of a model of slides: what it says of a patient's slides, put together by one stated rule.

The logits of a class are their mean over the slides, of equal weight; so are the log-odds of each of several labels,
and a number, a risk or the chance of a grade as it is told. The slides are drawn independently, so that the half-width
of the mean of S is ``sqrt(sum h_s^2) / S``, in log-odds of classes and labels: of more than two classes that is to the
first order. It is the mean of what slides say, not a model that saw them together: see ``cohort.unit``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.labels import known_label
from pipeline.run.counting import Counted
from pipeline.task.task import Task
from stages.amounts import counted

Rows = Sequence[tuple[CohortSlide, Mapping[str, Any]]]
LEAST = 1e-300
"""A probability of 0 in float64 is not told from this."""
SUMS = ("patches_read", "cells", "bytes_read", "seconds")


def tells_patients(cohort: Cohort) -> bool:
    """Whether a table says whose slides its are, and somebody has several."""
    people = [slide.patient for slide in cohort.slides]
    return "patient" in cohort.columns and len(set(people)) < len(people)


def combined(rows: Sequence[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    """What a patient's predicted slides say together, by the columns of predictions.csv."""
    values, low, high = (
        np.array([[row[f"{column}{end}"] for column in task.columns] for row in rows], np.float64)
        for end in ("", "_low", "_high")
    )
    if len(rows) == 1:
        return task.row(values[0].tolist(), low[0].tolist(), high[0].tolist())
    if task.kind not in ("classification", "multilabel"):
        mean, half = values.mean(0), _half(low, high)
        return task.row(mean.tolist(), *(_within(mean + sign * half, task).tolist() for sign in (-1, 1)))
    from scipy.special import expit, log_softmax, logit  # seldom needed

    if task.kind == "classification":
        mean = np.exp(log_softmax(np.log(np.maximum(values, LEAST)).mean(0)))
    else:
        mean = expit(logit(values).mean(0))
    half = _half(logit(low), logit(high))
    return task.row(mean.tolist(), *(expit(logit(mean) + sign * half).tolist() for sign in (-1, 1)))


def _half(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-widths (T,) of the mean, from the ends (S, T) of the slides' intervals; those of no width have none."""
    apart = np.where(low == high, 0.0, np.where(np.isfinite(high) & np.isfinite(low), high - low, np.inf))
    found: NDArray[np.float64] = np.sqrt(np.square(apart / 2).sum(0)) / len(low)
    return found


def _within(ends: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    return ends.clip(0, 1) if task.chances else ends


def patient_rows(rows: Rows, task: Task) -> list[dict[str, Any]]:
    """A row of patients.csv for each patient, in the order of their first slides; one of whose slides has no
    prediction says so, and is told from the others. The label is the slides', where theirs do not differ.

    Args:
        rows: slides with their rows of predictions.csv, whatever their status.
        task: of the model.
    """
    return [_row(patient, own, task) for patient, own in _by_patient(rows).items()]


def _row(patient: str, own: Rows, task: Task) -> dict[str, Any]:
    about = {"patient": patient, "slides": "; ".join(slide.slide_id for slide, _ in own)}
    labels = {cells for slide, _ in own if (cells := known_label(slide, task)) is not None}
    about |= task.label_row(labels.pop()) if len(labels) == 1 else {}
    done = [row for _, row in own if row["status"] == "ok"]
    rest = [(slide, row) for slide, row in own if row["status"] != "ok"]
    lost = "; ".join(f"{slide.slide_id} {row['status']}: {row['error']}".rstrip(": ") for slide, row in rest)
    if not done:
        waiting = any(row["status"] != "failed" for _, row in rest)
        return {**about, "status": rest[0][1]["status"] if not waiting else "waiting", "error": lost}
    sums = {name: sum(row[name] for row in done) for name in SUMS}
    key = hashlib.sha256(" ".join(sorted(str(row["key"]) for row in done)).encode()).hexdigest()
    return {
        **about,
        "status": "ok",
        "error": "",
        **combined(done, task),
        **sums,
        "fraction_read": float(
            np.average([row["fraction_read"] for row in done], weights=[row["cells"] for row in done])
        ),
        "key": key,
        "warnings": [f"of {counted(len(done), 'slide')} of {len(own)}: {lost}"] if rest else [],
    }


def patient_metrics(told: Counted, task: Task) -> dict[str, Any] | None:
    """How good the patients' predictions are, of those slides that count; None where none do.

    A patient whose slides have different labels is not counted.
    """
    people = _by_patient(told.slides)
    labels = {patient: {str(known_label(slide, task)) for slide, _ in own} for patient, own in people.items()}
    judged = {patient: own for patient, own in people.items() if len(labels[patient]) == 1}
    if not judged:
        return None
    rows = []
    for own in judged.values():
        cells = known_label(own[0][0], task)
        assert cells is not None
        rows.append({**combined([row for _, row in own], task), **task.label_row(cells)})
    sites = [own[0][0].site for own in judged.values()]
    metrics = {**task.evaluate(rows, list(judged), sites=sites), "unit": "patient"}
    metrics["slides"] = sum(map(len, judged.values()))
    return {"counted": len(judged), "labels_differ": len(people) - len(judged) + len(told.differ), "metrics": metrics}


def _by_patient(rows: Rows) -> dict[str, list[tuple[CohortSlide, Mapping[str, Any]]]]:
    people: dict[str, list[tuple[CohortSlide, Mapping[str, Any]]]] = {}
    for slide, row in rows:
        people.setdefault(slide.patient, []).append((slide, row))
    return people
