"""Run a model over a cohort: one dask task a slide, failures recorded, a rerun does only what is missing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cohort.table import Cohort, CohortSlide
from pipeline.device import check_device, find_device
from pipeline.errors import UsageError
from pipeline.model.build import told_of_encoder
from pipeline.model.checkpoint import find_model, load_model, model_digest
from pipeline.model.quality import Quality
from pipeline.model.slide_model import SlideModel
from pipeline.output.folder import ABSTENTION, RUN, prepare_output
from pipeline.output.run_record import write_run
from pipeline.output.slide_folder import GALLERY
from pipeline.output.table import decision_in_words, prediction_columns, write_predictions, write_table
from pipeline.predict import check_budget, check_prior, decision_of
from pipeline.refer.measure import coverage
from pipeline.refer.referral import UNLIKE
from pipeline.run.interrupt import finishing
from pipeline.run.slide import RunSettings, process_slide, referral_of
from pipeline.run.workers import each, suited
from stages.disk import new_file
from stages.html import table
from stages.prediction.intervals import stated
from stages.slide.resolution import check_mpp

Progress = Callable[[int, int, str | None], None]


def run_cohort(
    cohort: Cohort,
    out: Path,
    settings: RunSettings,
    *,
    workers: int | None = 0,
    limit: float | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> RunSummary:
    """Predict every slide of a cohort into ``out`` and write its table and report.

    Raises:
        UsageError: nothing was started, because the model, the output folder or the scheduler cannot be used.
    """
    _check_mpp(settings.mpp)
    # workers may have another working directory
    settings = replace(settings, model=find_model(settings.model).resolve())
    check_device(settings.device)
    # a device that is not here may be where the scheduler's workers are; ours load the model themselves
    if scheduler is None:
        find_device(settings.device)
    if workers is None:
        workers = suited(len(cohort.slides), device=find_device(settings.device).type if scheduler is None else "cpu")
    device = "cpu" if workers or scheduler else settings.device
    model = load_model(settings.model, device=device, encoder_weights=settings.encoder_weights)
    spec = model.spec
    _check_labels(cohort, spec.classes, settings.model)
    check_budget(spec, samples=settings.samples, scheme=settings.scheme)
    decision_of(spec, settings.decide, settings.risk, settings.positive, samples=settings.samples)
    if settings.prior is not None:
        check_prior(spec, settings.prior)
        if settings.prior.place.is_file() and not settings.prior.is_network:
            raise UsageError(f"--prior: {settings.prior.place} is one slide's map; give the folder that it is in")
        settings = replace(settings, prior=replace(settings.prior, place=settings.prior.place.resolve()))
    referral_of(settings, model)  # what it refuses is told before anything is started
    prediction_columns(spec.classes)  # names that collide would be told at the end only
    prepare_output(out, names=RUN)
    started = time.time()
    digest = model_digest(settings.model)
    rows: dict[str, dict[str, Any]] = {}
    reused = 0
    jobs = [(slide, out.resolve(), settings, digest) for slide in cohort.slides]
    with finishing() as stop:
        for slide, row in each(process_slide, jobs, workers=workers, scheduler=scheduler, limit=limit, stop=stop):
            earlier = bool(row.pop("reused", False))
            reused += earlier
            rows[slide.slide_id] = row
            if progress:
                words = f"{in_words(row)}{' (done earlier)' if earlier else ''}"
                progress(len(rows), len(jobs), f"{slide.slide_id}: {words}")
    done = replace(cohort, slides=tuple(slide for slide in cohort.slides if slide.slide_id in rows))
    ordered = [rows[slide.slide_id] for slide in done.slides]
    summary = _finish(done, out, ordered, model, reused, settings, started, command)
    if stop.is_set():
        raise KeyboardInterrupt
    return summary


def _check_labels(cohort: Cohort, classes: Sequence[str], model: Path) -> None:
    unknown = sorted({s.label for s in cohort.slides if s.label is not None} - set(classes))
    if unknown:
        raise UsageError(
            f"the cohort has the label {unknown[0]!r}, but {model} was trained for {', '.join(classes)}: "
            "use the model of this task, or a table without a label column to predict only"
        )


def _check_mpp(mpp: float | None) -> None:
    problem = None if mpp is None else check_mpp(mpp, mpp)
    if problem:
        raise UsageError(f"--mpp: {problem}")
