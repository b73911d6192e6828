"""Train the model on a cohort, slide labels only, end to end; cross-validate; keep all that resuming needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.cohort.cohort import Cohort
from pipeline.cohort.folds import check_folds, is_split
from pipeline.cohort.labels import dealt
from pipeline.cohort.patients import by_patient, refuse_two_labels, slides_of
from pipeline.cohort.splits import DEFAULT_FOLDS, refuse_twins
from pipeline.config import Config
from pipeline.device import check_devices, check_precision, find_device
from pipeline.errors import UsageError
from pipeline.model.build import OnFrozenEncoder, build_model
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import misfits, task_of
from pipeline.output.documents import write_json
from pipeline.output.folder import TRAINING, fitting_alone, prepare_output
from pipeline.output.log import logging_to
from pipeline.output.table import prediction_columns, write_table
from pipeline.refer.referral import check_names
from pipeline.report.training import write_training_report
from pipeline.task.task import Task
from pipeline.train.calibrate_job import calibrate_intervals
from pipeline.train.compare import Comparison
from pipeline.train.ensemble import check_ensemble, put_together
from pipeline.train.fit_job import calibrate_calls, chooses, fit_job, keeping, refuse_lost_class, stamp
from pipeline.train.from_bags import are_bags, of_bags
from pipeline.train.held_out import OUT_OF_BAG, in_lines, out_of_bag_rows, predicted, scored
from pipeline.train.job import CROSS, inner_sites, plan_jobs
from pipeline.train.journal import require_tensorboard
from pipeline.train.looks import Looks
from pipeline.train.operating import in_lines as in_lines_of_threshold
from pipeline.train.operating import operating_point
from pipeline.train.spec import (
    cache_in,
    configured_cohort,
    configured_task,
    fit_settings,
    model_spec,
    prior_in,
    refuse_settings,
)
from pipeline.train.verdict import closing, judge_quality
from stages.amounts import counted
from stages.disk import new_file
from stages.heap import keep_freed

Say = Callable[[str], None]


def cohort_to_train_on(config: Config) -> tuple[Cohort, Task, list[str]]:
    """The cohort that a configuration names, a row for each slide or patient, dealt out; what its labels are; and what
    is doubtful about its folds, a line each. No slide is read.

    Raises:
        UsageError: the configuration or the table cannot be used.
    """
    told = config.training
    cohort = configured_cohort(config.cohort, folds=told.folds, splits=told.splits)
    task = configured_task(config.cohort, cohort)
    refuse_settings(config, task)
    by_site = told.folds_by == "site"
    if config.cohort.unit == "patient":
        cohort = replace(cohort, slides=by_patient(cohort.slides, task, cohort.source, by_site=by_site))
    else:
        refuse_two_labels(cohort.slides, task, cohort.source)
    by_split = is_split(cohort.slides, told.folds)
    cohort = dealt(cohort, task, None if by_split else told.folds or DEFAULT_FOLDS, by_site=by_site)
    doubts = check_folds(
        cohort.slides,
        folds=told.folds,
        by=told.folds_by,
        repeats=told.repeats,
        inner_val=told.inner_val,
        inner_by=told.inner_val_by,
        seed=told.seed,
        task=task,
    )
    if told.ensemble:
        check_ensemble(config, cohort.slides)
    return cohort, task, doubts


def train_cohort(
    config: Config, out: Path, *, say: Say, strict: bool = False, verify: bool = False, command: Sequence[str] = ()
) -> dict[str, Any]:
    """Train on the configured cohort and write ``model.safetensors``, ``predictions.csv``, ``metrics.json`` and
    ``report.html``.

    With a split column the model is fitted on "train" and judged on "val" and "test"; otherwise every fold is held out
    in turn, once or in several repeats, and the model that is kept is then fitted on all slides. What chooses an epoch
    within a fold is an inner part of its training's patients. A rerun goes on from the last finished epoch.

    A slide that cannot be read is left out from then on, wherever that shows, and named with its reason under
    "excluded" of the metrics; the others go on; so is one whose resolution something contradicts, if ``strict``.
    With ``verify``, every byte of every slide is read and counts. A
    finished model that is not of this cohort and configuration any more is said to be so and why, and kept in a folder
    ``earlier-<digest>`` when the new one takes its place.

    Returns:
        The metrics, as written.

    Raises:
        UsageError: configuration, table or folder cannot be used, no slide of some class is left to train on, or
            training diverges.
    """
    keep_freed()  # before there are threads
    told = config.training
    check_precision(told.precision, find_device(told.device))  # said before anything is read
    check_devices(told.devices, told.device, batch_size=told.batch_size)
    if told.tensorboard:
        require_tensorboard()
    cohort, task, doubts = cohort_to_train_on(config)
    spec = model_spec(config, task)
    if are_bags(cohort.slides, config):
        spec = of_bags(spec, cohort.slides, config, say)
    prediction_columns(task)  # names that collide would be told at the end only
    try:
        untrained = build_model(spec, encoder_weights=config.encoder.weights)
        encoder: Any = untrained.backbone if isinstance(untrained, OnFrozenEncoder) else untrained.encoder
        if spec.bags is None:
            encoder(torch.zeros(1, spec.patch_px, spec.patch_px, 3, dtype=torch.uint8))
    except (ValueError, ImportError) as exc:
        raise UsageError(f"encoder: {exc}") from exc
    except (RuntimeError, AssertionError) as exc:  # networks of a fixed input size
        raise UsageError(
            f"encoder: {spec.encoder!r} cannot take patches of view.patch_px={spec.patch_px}: {exc}"
        ) from exc
    prior = prior_in(config)
    if prior is not None:
        try:
            prior.check()
        except (ValueError, ImportError) as exc:
            raise UsageError(f"attention.prior: {exc}") from exc
    if config.training.compare and config.training.folds is None and all(s.split == "train" for s in cohort.slides):
        raise UsageError("nothing is held out to compare on: give some slides another split, or training.folds")
    if isinstance(untrained, OnFrozenEncoder):
        for doubt in misfits(untrained.spec, untrained.backbone.card):
            say(f"warning: {doubt}")
    prepare_output(out, names=TRAINING)
    with logging_to(out / "train.log", command) as log, fitting_alone(out):

        def tell(line: str) -> None:
            log(line)
            say(line)

        for doubt in doubts:
            tell(f"warning: {doubt}")
        return _train(config, out, cohort, untrained, say=tell, strict=strict, verify=verify)


def _train(
    config: Config, out: Path, cohort: Cohort, untrained: SlideModel, *, say: Say, strict: bool, verify: bool
) -> dict[str, Any]:
    """`train_cohort`, once everything is found to be usable."""
    spec, told = untrained.spec, config.training
    task = task_of(spec)
    say(f"{cohort.reading}; {task.reading}")
    if task.kind == "classification":
        try:
            check_names(spec.classes)
        except UsageError as exc:
            say(f"warning: label sets: `saccade run --refer` will not be possible with this model: {exc}")
    looks = Looks(untrained, cache_in(config), say, strict=strict, prior=prior_in(config), verify=verify)
    slides = slides_of(cohort.slides)
    looks.first(slides)
    jobs = plan_jobs(cohort.slides, config, out)
    inner = {} if (told.inner_val_by or told.folds_by) != "site" else inner_sites(jobs)
    for name, sites in inner.items():
        say(f"{name}: its epoch is chosen on {', '.join(sites)}, which training.inner_val takes from its training")
    twins = [
        refuse_twins({part: slides_of(rows) for part, rows in job.parts.items()}, looks.fingerprints) for job in jobs
    ]
    for warning in dict.fromkeys(one for found in twins for one in found):
        say(f"warning: {warning}")
    for job in jobs:
        refuse_lost_class(job, spec, looks)
    rows: list[dict[str, Any]] = []
    every = []
    for job in jobs:
        every.append(fit_job(job, spec, config, looks, say))
        if job is not jobs[-1]:
            every[-1].model.forget()  # of many folds it would be gigabytes
    models = [fitted.model for fitted in every]
    calibrate_intervals(jobs, models, config, looks, say)
    for job, fitted in zip(jobs, every, strict=True):
        calibrate_calls(job, fitted, config, looks, job.said(say))
        own: list[dict[str, Any]] = []
        for part, held_out in job.held_out.items():
            found = (predicted(fitted.model, slide, looks, seed=config.training.seed) for slide in held_out)
            fold: dict[str, Any] = {"fold": job.name} if part == CROSS else {}
            if part == CROSS and any(one.repeat for one in jobs):
                fold["repeat"] = job.repeat
            own += [{"part": part, **fold, **row} for row in found if row is not None]
        rows += own
        fitted.model.forget()
        if job is not jobs[-1] and own:  # of a fold; what is said of the last one says all
            stamp(job, fitted, judge_quality({CROSS: scored(own, task)}, fitted.losses, task))
    rows += out_of_bag_rows(jobs[-1].train, fitted.out_of_bag, task, looks.excluded)
    metrics: dict[str, Any] = {
        "task": task.kind,
        "classes": list(spec.classes),
        **({"unit": spec.unit} if spec.unit == "patient" else {}),
        "slides": {"in_table": len(slides), "excluded": len(looks.excluded)},
        "excluded": looks.excluded,
        **({"inner_val": inner} if inner else {}),
    }
    parts = [*(part for job in jobs for part in job.held_out), *([OUT_OF_BAG] if fitted.out_of_bag else [])]
    for part in dict.fromkeys(parts):
        members = [row for row in rows if row["part"] == part]
        if not members:
            say(f"{part}: none of its slides could be predicted, see the lines above")
            continue
        metrics[part] = scored(members, task)
        if part == "val" and chooses(config):
            say("val: the epoch was chosen by these slides, for which the model may seem too good")
        for line in in_lines(part, members, metrics[part], task):
            say(line)
    quality = judge_quality(metrics, fitted.losses, task)
    stamp(jobs[-1], fitted, quality)
    binary = task.kind == "classification"
    sensitivity = config.training.threshold_sensitivity
    threshold = operating_point(rows, spec.classes, sensitivity=sensitivity) if binary else None
    for line in in_lines_of_threshold(threshold):
        say(line)
    metrics |= {"threshold": threshold, "learned": quality.learned, "reason": quality.reason}
    write_table(out / "predictions.csv", rows)
    write_json(out / "metrics.json", metrics)
    judged = {part: metrics[part]["slides"] for part in dict.fromkeys(parts) if part in metrics}
    with new_file(out / "report.html") as temporary:
        write_training_report(temporary, metrics, quality, parts=judged, threshold=in_lines_of_threshold(threshold))
    if told.ensemble:
        put_together(jobs, models, config, out, looks, say=say)
    if told.compare:
        comparison = Comparison(
            looks=looks,
            samples=config.sampling.samples,
            settings=fit_settings(config, spec),
            device=config.training.device,
            weights=config.encoder.weights,
            keep=lambda model: keeping(model, config),
            say=say,
        )
        comparison(jobs, models, out)
    learnt_from = [slide for slide in slides_of(jobs[-1].train) if slide.slide_id not in looks.excluded]
    for line in closing(
        quality,
        classes=spec.classes,
        slides=len(learnt_from),
        patients=len({slide.patient or slide.slide_id for slide in learnt_from}),
        encoder=spec.encoder,
        patch_mpp=spec.patch_mpp,
        model=str(jobs[-1].model),
    ):
        say(line)
    if looks.excluded:
        say(f"{len(looks.excluded)} of {counted(len(slides), 'slide')} left out; {out / 'metrics.json'} says why")
    return metrics
