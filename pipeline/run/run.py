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

from pipeline.cohort.table import Cohort
from pipeline.device import check_device, find_device
from pipeline.errors import UsageError
from pipeline.model.build import told_of_encoder
from pipeline.model.checkpoint import find_model, load_model, model_digest
from pipeline.model.quality import Quality
from pipeline.model.slide_model import SlideModel
from pipeline.output.folder import RUN, prepare_output
from pipeline.output.run_record import write_run
from pipeline.output.slide_folder import GALLERY
from pipeline.output.table import decision_in_words, prediction_columns, write_predictions
from pipeline.predict import check_budget, check_prior, decision_of
from pipeline.run.slide import RunSettings, process_slide
from pipeline.run.workers import each
from stages.disk import new_file
from stages.html import table
from stages.prediction.intervals import stated
from stages.slide.resolution import check_mpp

Progress = Callable[[int, int, str | None], None]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What became of a run's slides; a notebook shows a row for each.

    Attributes:
        total: how many slides there were.
        ok: how many were predicted.
        failed: how many could not be.
        reused: how many of the predicted ones were so by an earlier run.
        rows: the rows of predictions.csv, by column.
        intervals: how sure theirs are, in a phrase.
        metrics: of the slides that have labels and are counted; empty where there are none, or of one class only.
        not_counted: how many labelled slides are not, by why: the model was trained on them, or the table says that
            they are to train ("train") or to choose with ("val").
        quality: how good the model was found to be where it was trained, and whether it has learned; None: not known.
    """

    total: int
    ok: int
    failed: int
    reused: int
    rows: list[dict[str, Any]] = field(repr=False)
    intervals: str = field(repr=False)
    metrics: dict[str, Any] = field(repr=False)
    not_counted: dict[str, int] = field(default_factory=dict, repr=False)
    quality: Quality | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        rows = [(row["slide_id"], in_words(row)) for row in self.rows]
        counts = f"{self.ok} of {self.total} slides predicted ({self.reused} already done), {self.failed} failed"
        if self.quality is not None and self.quality.warning:
            counts += f"; warning: {self.quality.warning}"
        return table(rows, header=("slide", "prediction"), caption=counts)


def run_cohort(
    cohort: Cohort,
    out: Path,
    settings: RunSettings,
    *,
    workers: int = 0,
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
    prediction_columns(spec.classes)  # names that collide would be told at the end only
    prepare_output(out, names=RUN)
    started = time.time()
    digest = model_digest(settings.model)
    rows: dict[str, dict[str, Any]] = {}
    reused = 0
    jobs = [(slide, out.resolve(), settings, digest) for slide in cohort.slides]
    for slide, row in each(process_slide, jobs, workers=workers, scheduler=scheduler):
        earlier = bool(row.pop("reused", False))
        reused += earlier
        rows[slide.slide_id] = row
        if progress:
            words = f"{in_words(row)}{' (done earlier)' if earlier else ''}"
            progress(len(rows), len(jobs), f"{slide.slide_id}: {words}")
    ordered = [rows[slide.slide_id] for slide in cohort.slides]
    return _finish(cohort, out, ordered, model, reused, settings, started, command)


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


def _finish(
    cohort: Cohort,
    out: Path,
    rows: list[dict[str, Any]],
    model: SlideModel,
    reused: int,
    settings: RunSettings,
    started: float,
    command: Sequence[str],
) -> RunSummary:
    from pipeline.cohort.metrics import evaluate
    from pipeline.report.cohort_gallery import cohort_gallery
    from pipeline.report.report import write_report

    classes, quality = model.spec.classes, model.quality
    done = [(slide, row) for slide, row in zip(cohort.slides, rows, strict=True) if row["status"] == "ok"]
    labelled, not_counted = [], Counter[str]()
    for slide, row in done:
        why = "trained on" if row.pop("trained_on") else slide.split
        if slide.label is not None and why in (None, "test"):
            labelled.append((slide, row))
        elif slide.label is not None:
            not_counted[f"{why}"] += 1
    metrics: dict[str, Any] = {}
    if len({slide.label for slide, _ in labelled}) > 1:
        metrics = evaluate(
            [str(slide.label) for slide, _ in labelled],
            np.array([[row[f"prob_{c}"] for c in classes] for _, row in labelled]),
            [slide.patient for slide, _ in labelled],
            classes,
            sites=[slide.site for slide, _ in labelled],
        )
    counts = (len(rows), len(done), len(rows) - len(done), reused)
    summary = RunSummary(*counts, rows, stated(len(classes)), metrics, dict(not_counted), quality)
    run = {
        "command": list(command),
        "settings": asdict(settings),
        "classes": list(classes),
        "intervals": summary.intervals,
        "encoder": told_of_encoder(model),
        "quality": quality and quality.to_json(),
        "warning": quality and quality.warning,
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "slides": summary.total,
        "ok": summary.ok,
        "failed": summary.failed,
        "reused": reused,
        "bytes_read": sum(row["bytes_read"] for _, row in done),
        "slide_bytes": sum(row.pop("slide_bytes") for _, row in done),
        "metrics": metrics,
        "warnings": {row["slide_id"]: row["warnings"] for _, row in done if row.get("warnings")},
        "not_counted": dict(not_counted),
    }
    write_predictions(out / "predictions.csv", rows, classes)
    write_run(out / "run.json", run)
    picture = cohort_gallery(out, {row["slide_id"]: row.pop("gallery") for _, row in done})
    if picture is not None:
        with new_file(out / GALLERY) as temporary:
            picture.save(temporary, format="JPEG", quality=85)
    with new_file(out / "report.html") as temporary:
        write_report(temporary, rows, run, gallery=GALLERY if picture is not None else None)
    for _, row in done:
        del row["words"]
    return summary


def in_words(row: dict[str, Any]) -> str:
    """A row of predictions.csv for a person."""
    if row["status"] != "ok":
        return f"failed: {row['error']}"
    name = row["predicted"]
    return (
        f"{name} {row[f'prob_{name}']:.2f} [{row[f'prob_{name}_low']:.2f}, {row[f'prob_{name}_high']:.2f}], "
        f"read {row['patches_read']} of {row['cells']} patches ({row['fraction_read']:.1%} of the tissue), "
        f"{row['seconds']:.1f} s{decision_in_words(row, before='; ')}"
        + "".join(f"; warning: {warning}" for warning in row.get("warnings", ()))
    )
