"""What a model says of slides that it was not fitted to, and how good that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import reason_of
from pipeline.model.joint import spared
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import task_of
from pipeline.statistics.power import power_in_words
from pipeline.task.task import Task
from pipeline.train.looks import Looks
from stages.amounts import counted
from stages.slide.facts import SlideError

OUT_OF_BAG = "out-of-bag"
"""The part of the slides that were trained on, as the members say of them that had not seen them."""


def predicted(model: SlideModel, slide: CohortSlide, looks: Looks, *, seed: int) -> dict[str, Any] | None:
    """A held-out slide's row of predictions.csv, or a patient's; None where it is left out."""
    while True:
        try:
            shown = looks.seen(slide)
            generator = shown.generator(seed, model.drawing_device)
            found = model.sample(shown.view, generator=generator).prediction
            break
        except SlideError as exc:
            reason = f"when predicted: {reason_of(exc)}"
            if not spared(exc, reason):
                looks.leave_out(slide, reason)
                return None
    task = task_of(model.spec)
    told = task.row(*(values.tolist() for values in (found.values, found.low, found.high)))
    return {**_who(slide, task, looks.excluded), "out_of_distribution": shown.likeness(model).score, **told}


def out_of_bag_rows(
    slides: Sequence[CohortSlide], found: Mapping[str, Sequence[float]], task: Task, excluded: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Rows of those slides, or patients, of which ``found`` has the values that are told, by name; patients' slides
    that are ``excluded`` do not count."""
    return [
        {
            "part": OUT_OF_BAG,
            **_who(slide, task, excluded),
            "predicted": task.predicted(found[slide.slide_id]),
            **dict(zip(task.columns, found[slide.slide_id], strict=True)),
        }
        for slide in slides
        if slide.slide_id in found
    ]


def scored(rows: Sequence[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    """How good rows of predictions are: see `Task.evaluate`.

    Of repeated cross-validations the mean over the repeats, and of its limits: repeats take out what the folds leave to
    chance, and add no patient. ``repeats`` then has each one's values, and ``folds`` the folds of all, which are each
    of one repeat.
    """
    found = [_scored([row for row in rows if row.get("repeat") == r], task) for r in _repeats(rows)]
    if len(found) == 1:
        return found[0]
    values = {name: [one[name]["value"] for one in found] for name in task.metrics if name in found[0]}
    folds = {name: fold for one in found for name, fold in one.get("folds", {}).items()}
    return {**averaged(found), **({"folds": folds} if folds else {}), "repeats": values}


def _repeats(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    return list(dict.fromkeys(row.get("repeat") for row in rows))


def averaged(found: Sequence[Any]) -> Any:
    """The mean of each number of values of one form; counts are rounded, and what is missing in one is so in all."""
    first = found[0]
    if any(one is None for one in found):
        return None
    if isinstance(first, dict):
        return {key: averaged([one[key] for one in found]) for key in first if all(key in one for one in found)}
    if isinstance(first, int):
        return round(np.mean(found))
    return float(np.mean(found)) if isinstance(first, float) else first


def _scored(rows: Sequence[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    patients, sites, folds = ([row.get(key) for row in rows] for key in ("patient", "site", "fold"))
    found = task.evaluate(rows, [str(patient) for patient in patients], sites=sites, folds=folds)
    counts = [row["slides"] for row in rows if "slides" in row]
    return {**found, "unit": "patient", "slides": sum(counts)} if counts else found


def in_lines(part: str, members: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], task: Task) -> list[str]:
    """What is said of a part, in lines."""
    lines = [f"{part}: {task.told_of(metrics)}"]
    name = task.metric.key
    values = [one for one in metrics.get("repeats", {}).get(name, ()) if one is not None]
    if values:
        lines[0] += f"; mean of {len(values)} repeats, whose {name} is {min(values):.3f} to {max(values):.3f}"
    needed, within = power_in_words(metrics), metrics.get(f"{name}_within_folds") or {}
    lines += [f"{part}: {needed}"] if needed else []
    if within.get("low") is not None:
        of = "patients" if task.of_patient else "slides"
        lines.append(
            f"{part}, within folds: {name} {within['value']:.3f} [{within['low']:.3f}, {within['high']:.3f}]: pairs of "
            f"{of} of one fold, for each fold's model scores on a scale of its own"
        )
    unlike = [str(row.get("slide_id", row["patient"])) for row in members if (row.get("out_of_distribution") or 0) > 1]
    if unlike:
        what = counted(len(unlike), str(metrics.get("unit", "slide")))
        lines.append(f"warning: {part}: {what} unlike those trained on: {', '.join(unlike)}")
    return lines + [f"{part}, site {site}: {task.told_of(one)}" for site, one in metrics.get("sites", {}).items()]


def _who(slide: CohortSlide, task: Task, excluded: Mapping[str, str]) -> dict[str, Any]:
    """Whose row it is; a patient's says of how many slides."""
    label = task.label_row(slide.cells(task.labels))
    if slide.members:
        slides = sum(one.slide_id not in excluded for one in slide.members)
        return {"patient": slide.patient, "slides": slides, **label, "site": slide.site}
    return {"slide_id": slide.slide_id, "patient": slide.patient, **label, "site": slide.site}
