"""What a model says of slides that it was not fitted to, and how good that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.cohort.metrics import METRICS, evaluate, in_words
from pipeline.cohort.table import CohortSlide
from pipeline.errors import reason_of
from pipeline.model.look import Look
from pipeline.model.slide_model import SlideModel
from pipeline.train.looks import Looks
from stages.amounts import counted
from stages.slide.facts import SlideError

OUT_OF_BAG = "out-of-bag"
"""The part of the slides that were trained on, as the members say of them that had not seen them."""


def predicted(model: SlideModel, slide: CohortSlide, looks: Looks, *, seed: int) -> dict[str, Any] | None:
    """A held-out slide's row of predictions.csv, or None where it is left out."""
    try:
        shown: Look = looks(slide)
        generator = shown.generator(seed, model.drawing_device)
        found = model.sample(shown.view, generator=generator).prediction
    except SlideError as exc:
        looks.leave_out(slide, f"when predicted: {reason_of(exc)}")
        return None
    columns = {"": found.probabilities, "_low": found.low, "_high": found.high}
    return {
        **_who(slide),
        "out_of_distribution": shown.likeness(model).score,
        **{f"prob_{c}{end}": float(v[i]) for end, v in columns.items() for i, c in enumerate(model.spec.classes)},
    }


def out_of_bag_rows(
    slides: Sequence[CohortSlide], found: Mapping[str, Sequence[float]], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of those slides of which ``found`` has the classes' probabilities, by name."""
    return [
        {
            "part": OUT_OF_BAG,
            **_who(slide),
            **{f"prob_{c}": float(p) for c, p in zip(classes, found[slide.slide_id], strict=True)},
        }
        for slide in slides
        if slide.slide_id in found
    ]


def scored(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """How good rows of predictions are: see `pipeline.cohort.metrics.evaluate`.

    Of repeated cross-validations the mean over the repeats, and of its limits: repeats take out what the folds leave to
    chance, and add no patient. ``repeats`` then has each one's values.
    """
    found = [_scored([row for row in rows if row.get("repeat") == r], classes) for r in _repeats(rows)]
    if len(found) == 1:
        return found[0]
    values = {name: [one[name]["value"] for one in found] for name in METRICS}
    return {**_averaged(found), "repeats": values}


def _repeats(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    return list(dict.fromkeys(row.get("repeat") for row in rows))


def _averaged(found: Sequence[Any]) -> Any:
    """The mean of each number of values of one form; counts are rounded, and what is missing in one is so in all."""
    first = found[0]
    if any(one is None for one in found):
        return None
    if isinstance(first, dict):
        return {key: _averaged([one.get(key) for one in found]) for key in first}
    if isinstance(first, int):
        return round(np.mean(found))
    return float(np.mean(found)) if isinstance(first, float) else first


def _scored(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    probabilities = np.array([[row[f"prob_{c}"] for c in classes] for row in rows])
    label, patient, site = ([row[key] for row in rows] for key in ("label", "patient", "site"))
    return evaluate(label, probabilities, patient, classes, sites=site)


def in_lines(part: str, members: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> list[str]:
    """What is said of a part, in lines."""
    lines = [f"{part}: {in_words(dict(metrics))}"]
    aurocs = [one for one in metrics.get("repeats", {}).get("auroc", ()) if one is not None]
    if aurocs:
        lines[0] += f"; mean of {len(aurocs)} repeats, whose auroc is {min(aurocs):.3f} to {max(aurocs):.3f}"
    unlike = [row["slide_id"] for row in members if (row.get("out_of_distribution") or 0) > 1]
    if unlike:
        lines.append(f"warning: {part}: {counted(len(unlike), 'slide')} unlike those trained on: {', '.join(unlike)}")
    return lines + [f"{part}, site {site}: {in_words(one)}" for site, one in metrics.get("sites", {}).items()]


def _who(slide: CohortSlide) -> dict[str, Any]:
    return {"slide_id": slide.slide_id, "patient": slide.patient, "label": slide.label, "site": slide.site}
