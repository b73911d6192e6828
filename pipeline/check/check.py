"""Check a slide, a folder or a cohort table before hours of work."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.check.cohort import check_together, of_reading
from pipeline.check.slide import CheckSettings, check_slide, failed_check, refuse_mpp
from pipeline.check.tables import plain_line
from pipeline.check.values import CheckSummary, Estimate, Finding, SlideCheck
from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.errors import UsageError, computing
from pipeline.run.interrupt import finishing
from pipeline.run.workers import each, suited

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.model.slide_model import SlideModel

Progress = Callable[[int, int, str | None], None]


def check_cohort(
    cohort: Cohort,
    settings: CheckSettings | None = None,
    *,
    faults: tuple[str, ...] = (),
    unsearched: tuple[str, ...] = (),
    model: Path | None = None,
    config: Config | None = None,
    workers: int | None = 0,
    limit: float | None = None,
    progress: Progress | None = None,
) -> CheckSummary:
    """Open and sample every slide, and look at all of them together; nothing is written.

    Args:
        cohort: the slides.
        settings: how; the defaults where None.
        faults, unsearched: what was wrong in reading the cohort: see `pipeline.cohort.target.examine_target`.
        model: whose scales slides are checked for, and whose cost is estimated; None: no model is meant.
        config: of a training on the cohort, which is asked what it would refuse; None: labels are taken for classes.
        workers: processes; 0 works in this one, None is as many as suit the machine.
        limit: see `pipeline.run.workers.each`.
        progress: called with (slides finished, slides in all, a line about the last one, where something is wrong).

    Raises:
        UsageError: the model, or a resolution for all slides, cannot be used.
        KeyboardInterrupt: it was stopped.
    """
    settings = settings or CheckSettings()
    refuse_mpp(settings.mpp)
    loaded = None
    if model is not None:
        settings, loaded = _for_model(settings, model)
    slides = tuple(dict.fromkeys(cohort.slides))  # what is listed twice is looked at once
    if workers is None:
        workers = suited(len(slides), device="cpu")
    found: dict[CohortSlide, SlideCheck] = {}
    jobs = [(slide, _settings_of(slide, slides, settings, loaded)) for slide in slides]
    with finishing() as stop:
        for slide, row in each(check_slide, jobs, workers=workers, scheduler=None, limit=limit, stop=stop):
            found[slide] = row["check"] if "check" in row else failed_check(slide, row["error"])
            if progress is not None:
                progress(len(found), len(slides), _line(found[slide]))
        if stop.is_set():
            raise KeyboardInterrupt
    checked = tuple(found[slide] for slide in slides)
    together = [*of_reading(faults, unsearched, cohort), *check_together(cohort, checked, learnt=config is None)]
    if config is not None:
        together += _training(config, {finding.words for finding in together})
    cost: Estimate | None = None
    if loaded is not None and model is not None:
        together += _labels(cohort, loaded, model)
        from pipeline.check.need import estimate

        cost = estimate(checked, loaded, workers=workers)
    return CheckSummary(cohort.source, checked, tuple(together), cost)


def _settings_of(
    slide: CohortSlide, slides: Sequence[CohortSlide], settings: CheckSettings, model: SlideModel | None
) -> CheckSettings:
    """Of a model of patients, one draw goes over all of a patient's slides: each is asked for its share of it."""
    if model is None or settings.model is None or model.spec.unit != "patient":
        return settings
    own = sum(one.patient == slide.patient for one in slides)
    return replace(settings, model=replace(settings.model, samples=math.ceil(settings.model.samples / own)))


def _training(config: Config, known: Collection[str]) -> list[Finding]:
    """What a training would refuse, or warn of, before it reads a slide, but for what is found anyway."""
    from pipeline.train.train import cohort_to_train_on  # which needs torch

    try:
        _, _, doubts = cohort_to_train_on(config)
    except UsageError as exc:
        words = str(exc).removeprefix(f"{config.cohort.table}: ").removeprefix(f"{config.cohort.table}, ")
        return [] if words in known else [Finding("training", f"`saccade train` would refuse this: {words}")]
    return [Finding("training", words, error=False) for words in doubts]


@computing()
def _for_model(settings: CheckSettings, model: Path) -> tuple[CheckSettings, SlideModel]:
    from pipeline.check.need import geometry_of
    from pipeline.model.checkpoint import load_model
    from pipeline.model.header import find_model

    loaded = load_model(find_model(model), device="auto")
    return replace(settings, model=geometry_of(loaded)), loaded


def _labels(cohort: Cohort, model: SlideModel, path: Path) -> list[Finding]:
    from pipeline.cohort.labels import refuse_unknown_labels
    from pipeline.model.spec import task_of

    try:
        refuse_unknown_labels(cohort, task_of(model.spec), path)
    except UsageError as exc:
        return [Finding("label", str(exc))]
    return []


def _line(found: SlideCheck) -> str | None:
    """About a slide with errors, while others are looked at."""
    wrong = next((finding.words for finding in found.findings if finding.error), None)
    return None if wrong is None else plain_line(f"{found.slide.slide_id}: {wrong}")
