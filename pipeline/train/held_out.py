"""What a model says of slides that it was not fitted to, and how good that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.cohort.table import CohortSlide
from pipeline.errors import reason_of
from pipeline.model.look import Look
from pipeline.model.slide_model import SlideModel
from pipeline.statistics.metrics import evaluate, in_words
from pipeline.statistics.power import power_in_words
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
    """How good rows of predictions are: see `pipeline.statistics.metrics.evaluate`."""
    probabilities = np.array([[row[f"prob_{c}"] for c in classes] for row in rows])
    label, patient, site = ([row[key] for row in rows] for key in ("label", "patient", "site"))
    return evaluate(label, probabilities, patient, classes, sites=site, folds=[row.get("fold") for row in rows])


def in_lines(part: str, members: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> list[str]:
    """What is said of a part, in lines."""
    lines = [f"{part}: {in_words(dict(metrics))}"]
    needed, within = power_in_words(metrics), metrics.get("auroc_within_folds") or {}
    lines += [f"{part}: {needed}"] if needed else []
    if within.get("low") is not None:
        lines.append(
            f"{part}, within folds: auroc {within['value']:.3f} [{within['low']:.3f}, {within['high']:.3f}]: pairs of "
            "slides of one fold, for each fold's model scores on a scale of its own"
        )
    unlike = [row["slide_id"] for row in members if (row.get("out_of_distribution") or 0) > 1]
    if unlike:
        lines.append(f"warning: {part}: {counted(len(unlike), 'slide')} unlike those trained on: {', '.join(unlike)}")
    return lines + [f"{part}, site {site}: {in_words(one)}" for site, one in metrics.get("sites", {}).items()]


def _who(slide: CohortSlide) -> dict[str, Any]:
    return {"slide_id": slide.slide_id, "patient": slide.patient, "label": slide.label, "site": slide.site}
