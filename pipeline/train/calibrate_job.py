"""The calibration of a training's intervals: a step of its own after the fits, done again only where what it follows
from has changed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.patients import slides_of
from pipeline.config import Config
from pipeline.model.checkpoint import save_model
from pipeline.model.slide_model import SlideModel
from pipeline.output.documents import read_json, write_json
from pipeline.train.calibrate import calibrate
from pipeline.train.job import Job
from pipeline.train.looks import Looks
from pipeline.train.spec import prior_of

CALIBRATION_VERSION = 1
"""Raised when a change here or in the stages changes what intervals are calibrated to."""
OF_INTERVALS = ("metrics.json", "predictions.csv", "comparison.csv")
"""What tells of the intervals of a model."""


def calibrate_intervals(
    jobs: Sequence[Job], models: Sequence[SlideModel], config: Config, looks: Looks, say: Callable[[str], None]
) -> None:
    """Calibrate the last model, once, and let those of the folds share its rule; what is done is not done again.

    A rule says how far draws fall from reading everything, by what they tell, and takes no labels: it is the model's
    kind and the slides' that it is of. What it followed from stands in ``training.json``; a kill on the way costs the
    step, not the fit.
    """
    (*folds, last), (*others, model) = jobs, models
    chosen, earlier = calibration_slides(last, config, looks), _record(last)
    key = _key(last, chosen, config, looks)
    lost = [slide for slide in slides_of(chosen) if slide.slide_id in earlier.get("left_out", {})]
    if earlier.get("key") == key and not any(looks.reads_whole(slide) for slide in lost):
        for slide in lost:
            looks.leave_out(slide, earlier["left_out"][slide.slide_id])
    else:
        earlier = _calibrated(last, model, chosen, config, looks, say) | {"key": key}
        _keep(last, model, earlier)
    for job, other in zip(folds, others, strict=True):
        if _record(job).get("key") != key:
            other.calibration = model.calibration
            _keep(job, other, {**earlier, "of": last.folder.name})


def _calibrated(
    job: Job,
    model: SlideModel,
    chosen: Sequence[CohortSlide],
    config: Config,
    looks: Looks,
    say: Callable[[str], None],
) -> dict[str, Any]:
    before = set(looks.excluded)
    started = time.perf_counter()

    def lose(index: int, reason: str) -> None:
        looks.leave_out(chosen[index], reason)

    model.calibration = None
    if chosen:
        model.calibration = calibrate(
            model,
            [lambda slide=slide: looks.seen(slide).view for slide in chosen],  # type: ignore[misc]
            seed=config.training.seed,
            say=say,
            leave_out=lose,
            patches=config.training.calibration_patches,
        )
    seconds = time.perf_counter() - started
    return {
        "slides": [slide.slide_id for slide in chosen],
        "patches": config.training.calibration_patches,
        "left_out": {name: why for name, why in looks.excluded.items() if name not in before},
        "seconds": seconds,
    }


def _keep(job: Job, model: SlideModel, record: Mapping[str, Any]) -> None:
    """Nothing that tells of other intervals stands beside the model, whenever this is killed."""
    for name in OF_INTERVALS:
        (job.folder / name).unlink(missing_ok=True)
    save_model(model, job.model)
    write_json(job.folder / "training.json", {**(read_json(job.folder / "training.json") or {}), "calibration": record})


def _record(job: Job) -> dict[str, Any]:
    """Of the calibration that the model stands with."""
    return (read_json(job.folder / "training.json") or {}).get("calibration") or {}


def calibration_slides(job: Job, config: Config, looks: Looks) -> tuple[CohortSlide, ...]:
    """The slides that are read: those that training did not see first. What a calibration leaves out was chosen for
    it, so that a rerun chooses the same."""
    if config.model.kind == "exhaustive":
        return ()  # its intervals have no width
    usable = [slide for slide in (*job.val, *job.train) if looks.lost(slide) is None]
    return tuple(usable[: config.training.calibration_slides])


def _key(job: Job, chosen: Sequence[CohortSlide], config: Config, looks: Looks) -> str:
    """SHA-256 of what a calibration follows from, beside the weights of the model that it stands with."""
    told = [
        CALIBRATION_VERSION,
        config.training.seed,
        config.training.calibration_patches if chosen else None,
        [
            (looks.facts[slide.slide_id].content, slide.mpp)
            for slide in slides_of(chosen)
            if slide.slide_id not in looks.excluded
        ],
        prior_of(job, config),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
