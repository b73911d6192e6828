"""The books of a run: the table, the record and the report of its folder, which are there, and true, at any time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.labels import known_label
from pipeline.garbage import uncollected
from pipeline.model.header import ENSEMBLE, MODEL, Knows, model_digest, told_of_encoder
from pipeline.model.quality import Quality
from pipeline.model.spec import Unit, task_of
from pipeline.output.documents import write_json
from pipeline.output.failures import Failures, Notes
from pipeline.output.folder import ABSTENTION, METRICS
from pipeline.output.run_record import versions, write_run
from pipeline.output.slide_folder import GALLERY
from pipeline.output.table import PATIENT, decision_in_words, write_predictions, write_table
from pipeline.refer.label_set import UNLIKE
from pipeline.refer.measure import coverage
from pipeline.report.cohort_gallery import cohort_gallery
from pipeline.report.report import write_report
from pipeline.run.combine import patient_metrics, patient_rows, tells_patients
from pipeline.run.counting import TRAINED, Counted, count, seen_by
from pipeline.run.earlier import STALE, earlier_patients, earlier_rows
from pipeline.run.keys import RunSettings, referral_of
from pipeline.run.outage import identity, stay
from pipeline.run.stale import withdraw_former
from pipeline.run.whole import named
from pipeline.run.workers import WAITING
from pipeline.task.classes import Classes
from pipeline.task.task import Task
from stages.amounts import counted
from stages.budget import Peaks, own_peak
from stages.disk import PREFIX, new_file
from stages.html import table
from stages.lease import lease

SHARE = 0.02
"""Of the time, what writing the books may take while slides are worked on."""
OFTEN = 2.0
"""Seconds between two writings at least."""


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
        metrics: of the slides that have labels and are counted; empty where there are none.
        not_counted: how many labelled slides are not, by why: the model was trained or validated on them or on others
            of their patients, or the table says that they are to train ("train") or to choose with ("val").
        quality: how good the model was found to be where it was trained, and whether it has learned; None: not known.
        refer: what is stated of label sets, and how often it held; None: none were made.
        kept: how many slides of earlier runs into the same folder, of other slides with the same model and settings,
            are in the table as well.
        others: how many there are whose model or settings are not these; they stay, and are not in the table.
        memory: the most that its processes held: see `stages.budget.Peaks`.
        waiting: how many were not tried: the run was stopped before, or was to do only others.
        task: what kind of label was predicted.
        judged: what is said of the metrics and of what they do not count, in lines.
        stale: how many of the kept ones' files are gone, or may have changed since: their rows warn of it.
        unit: what is counted and has a row: slides, or the patients of a model of patients, in patients.csv.
        left_out: how many slides of patients that were predicted could not be read.
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
    refer: dict[str, Any] | None = field(default=None, repr=False)
    kept: int = field(default=0, repr=False)
    others: int = field(default=0, repr=False)
    memory: dict[str, int] = field(default_factory=dict, repr=False)
    waiting: int = field(default=0, repr=False)
    task: Task = field(default=Classes(()), repr=False)
    judged: list[str] = field(default_factory=list, repr=False)
    stale: int = field(default=0, repr=False)
    unit: Unit = field(default="slide", repr=False)
    left_out: int = field(default=0, repr=False)

    @property
    def line(self) -> str:
        """How many became what."""
        of = counted(self.total, self.unit)
        told = f"{self.ok} of {of} predicted ({self.reused} already done), {self.failed} failed"
        told += f"; {counted(self.left_out, 'slide')} of theirs left out" if self.left_out else ""
        return told + (f", {self.waiting} not tried" if self.waiting else "")

    def _repr_html_(self) -> str:
        rows = [(row["slide_id"], in_words(row, self.task)) for row in self.rows]
        counts = self.line
        if self.quality is not None and self.quality.warning:
            counts += f"; warning: {self.quality.warning}"
        return table(rows, header=(self.unit, "prediction"), caption=counts)


class Books:
    """What is written of a run beside its slides' folders, once it has begun.

    Args:
        out: the run's folder.
        cohort: its slides.
        model: that predicts them.
        settings: of the run; ``digest`` tells them, and the model, from others.
        command: that began it.
    """

    def __init__(
        self,
        out: Path,
        cohort: Cohort,
        model: Knows,
        settings: RunSettings,
        digest: str,
        command: Sequence[str],
    ) -> None:
        self._out, self._cohort, self._model, self._settings, self._command = out, cohort, model, settings, command
        self._paths = {slide.slide_id: str(slide.path) for slide in cohort.slides}
        (out / "slides").mkdir(exist_ok=True)
        self._started, self._place = time.time(), identity(out)
        self._digest, self._failures = digest, Failures(out, "run")
        self._effective = _effective(settings, model)
        self._rows: dict[str, dict[str, Any]] = {}
        self.reused = 0
        self._peaks = Peaks()
        self._stages: dict[str, dict[str, Any]] = {}
        self._due = 0.0

    def add(self, slide: CohortSlide, row: Mapping[str, Any], *, write: bool = True) -> None:
        """A slide has ended one way or the other; where it is time, and ``write``, that is written."""
        stay(self._out, self._place)
        self.reused += bool(row.get("reused"))
        if row["status"] == "failed":
            whose = named(slide) if slide.members else {}
            self._failures.note(slide.slide_id, slide.path, row["error"], run=self._digest, **whose)
            withdraw_former(self._out, slide.slide_id, slide.path)
        self._peaks.add(row.get("peak"))
        if row.get("stages") and not row.get("reused"):
            self._stages[slide.slide_id] = row["stages"]
        told = {key: value for key, value in row.items() if key not in ("reused", "peak", "stages")}
        self._rows[slide.slide_id] = told | (named(slide) if slide.members else {})
        if write and time.monotonic() >= self._due:
            self.write()

    def close(self) -> RunSummary:
        """Write them for the last time: of runs that end at once, the last one sees what all did."""
        stay(self._out, self._place)
        with lease(self._out / f"{PREFIX}books", wait=True):
            return self.write(ended=True)

    def write(self, *, ended: bool = False) -> RunSummary:
        """Write them as they are now, with what other runs did here; ``ended`` says that it is for the last time.

        Raises:
            OSError: they cannot be written, or the folder is no longer the one that it was.
        """
        stay(self._out, self._place)
        began = time.monotonic()
        with uncollected(once=False):
            summary = self._write(ended)
        now = time.monotonic()
        self._due = now + max(OFTEN, (now - began) / SHARE)
        return summary

    def _waiting(self, slide: CohortSlide, notes: Notes) -> dict[str, Any]:
        """The row of a slide that was not tried; why it failed in an earlier run is not forgotten for that."""
        why = notes.of(slide.slide_id, slide.path)
        error = "" if why is None else f"failed when it was last tried: {why}"
        told = {"slide_id": slide.slide_id, "path": str(slide.path), "status": WAITING, "error": error}
        return told | (named(slide) if slide.members else {})

    def _write(self, ended: bool) -> RunSummary:
        out, model, task = self._out, self._model, task_of(self._model.spec)
        unit = model.spec.unit
        notes = self._failures.read()
        rows = [dict(self._rows.get(slide.slide_id) or self._waiting(slide, notes)) for slide in self._cohort.slides]
        done = [(slide, row) for slide, row in zip(self._cohort.slides, rows, strict=True) if row["status"] == "ok"]
        if unit == "patient":
            earlier, others = earlier_patients(
                out, self._paths, self._digest, task, partial(seen_by, model), notes.every
            )
        else:
            given = {slide.slide_id for slide, _ in done}, self._digest, model, notes.every
            earlier, others = earlier_rows(out, self._paths, *given)
        stale = sum(any(one.startswith(STALE) for one in row.get("warnings") or ()) for row in earlier)
        shown_of = (*(row for _, row in done), *(row for row in earlier if row["status"] == "ok"))
        galleries: dict[str, Any] = {}
        for row in shown_of:
            found = row.pop("gallery")
            galleries |= found if unit == "patient" else {row["slide_id"]: found}
        slide_bytes = sum(row.pop("slide_bytes") for _, row in done)
        told = count(done, task, split=self._settings.split, count_seen=self._settings.count_seen)
        for slide, row in done:
            row["seen"] = told.seen.get(slide.slide_id)
        several = unit == "slide" and tells_patients(self._cohort)
        if several:
            told = replace(told, patients=patient_metrics(told, task))
        labels: dict[str, dict[str, Any]] = {}
        for slide, row in done:
            cells = known_label(slide, task)
            if cells is not None:
                labels[slide.slide_id] = {
                    "patient": slide.patient,
                    "label": task.label_in_words(cells),
                    "agrees": task.agrees(row["predicted"], cells),
                    "not_counted": told.why.get(slide.slide_id),
                }
        refer = _referred(told, done, model, self._settings)
        counts = Counter(row["status"] for row in rows)
        shown = [*rows, *earlier]
        self._peaks.add(own_peak())
        now = datetime.now(UTC).isoformat(timespec="seconds")
        of_model = model.quality and model.quality.warning
        run = {
            "command": list(self._command),
            "cohort": self._cohort.source.name,
            "model": _name(self._settings.model),
            "settings": asdict(self._settings),
            "effective": self._effective,
            "task": task.kind,
            "classes": list(task.names),
            **({"times": list(task.times)} if task.times else {}),
            "intervals": task.confidence,
            "encoder": told_of_encoder(model),
            "quality": model.quality and model.quality.to_json(),
            "warning": of_model,
            "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            "written": now,
            "ended": now if ended else None,  # of one that goes on, or was cut short
            **({"unit": unit, "patients": len(rows)} if unit == "patient" else {}),
            "slides": sum(len(slide.each) for slide in self._cohort.slides),
            "ok": counts["ok"],
            "failed": counts["failed"],
            "waiting": counts[WAITING],
            "reused": self.reused,
            "earlier": len(earlier),
            "earlier_stale": stale,
            "other_settings": others,
            "bytes_read": sum(row["bytes_read"] for _, row in done),
            "slide_bytes": slide_bytes,
            "memory": self._peaks.to_json(),
            "stages": self._stages,
            "metrics": told.metrics,
            **({} if refer is None else {"refer": refer}),
            "warnings": {row["slide_id"]: row["warnings"] for _, row in done if row.get("warnings")},
            "not_counted": told.not_counted,
            "seen": told.seen_counts,
            **({"labels": labels} if labels else {}),
        }
        people = patient_rows(list(zip(self._cohort.slides, rows, strict=True)), task) if several else []
        known = [{**row, **self._known(slide, task)} for slide, row in zip(self._cohort.slides, rows, strict=True)]
        self._write_tables([*known, *earlier], people, task)
        if refer is None:
            (out / ABSTENTION).unlink(missing_ok=True)  # of a run that called
        else:
            write_table(out / ABSTENTION, refer["abstention"])
        if told.slides or told.why:
            write_json(out / METRICS, told.to_json())
        else:
            (out / METRICS).unlink(missing_ok=True)  # of a run with labels
        write_run(out / "run.json", run)
        picture = cohort_gallery(
            out,
            galleries,
            seen_mpp=model.spec.patch_mpp,
            unit=task.unit,
            warned=[of_model] if of_model else [],
            doubtful=[name for row in shown if row.get("warnings") for name in row.get("pictured", [row["slide_id"]])],
        )
        if picture is not None:
            with new_file(out / GALLERY) as temporary:
                picture.image.save(temporary, format="JPEG", quality=85)
        with new_file(out / "report.html") as temporary:
            lines = [
                {**row, **_labelled(labels.get(row["slide_id"], {})), "gallery": _with_gallery(row, galleries)}
                for row in shown
            ]
            write_report(
                temporary,
                lines,
                {**run, "versions": versions()},
                gallery=None if picture is None else GALLERY,
                cuts=() if picture is None else picture.cuts,
            )
        for row in known:
            row.pop("words", None)
        return RunSummary(
            len(rows),
            counts["ok"],
            counts["failed"],
            self.reused,
            known,
            run["intervals"],
            told.metrics,
            told.not_counted,
            model.quality,
            refer,
            len(earlier),
            others,
            run["memory"],
            counts[WAITING],
            task,
            told.in_lines(),
            stale,
            unit,
            sum(row.get("left_out", 0) for _, row in done),
        )

    def _known(self, slide: CohortSlide, task: Task) -> dict[str, Any]:
        """What the table, or a barcode, says of a slide whatever is predicted: whose it is, and its label."""
        cells = known_label(slide, task)
        says = "patient" in self._cohort.columns or slide.patient != slide.slide_id
        return {**({"patient": slide.patient} if says else {}), **({} if cells is None else task.label_row(cells))}

    def _write_tables(self, rows: list[dict[str, Any]], people: list[dict[str, Any]], task: Task) -> None:
        """What is predicted, by slide and by patient; a table that is of a run of the other unit goes."""
        by_slide, by_patient = (self._out / name for name in ("predictions.csv", "patients.csv"))
        if self._model.spec.unit == "patient":
            by_slide.unlink(missing_ok=True)
            write_predictions(by_patient, rows, task, PATIENT)
            return
        write_predictions(by_slide, rows, task)
        if people:
            write_predictions(by_patient, people, task, PATIENT)
        else:
            by_patient.unlink(missing_ok=True)


def _labelled(label: Mapping[str, Any]) -> dict[str, Any]:
    """What a report's row says of a label: without its patient, for a row that has one is a patient's."""
    return {name: value for name, value in label.items() if name != "patient"}


def _with_gallery(row: Mapping[str, Any], galleries: Mapping[str, Any]) -> bool | list[str]:
    """Whether a slide has a gallery, or which of a patient's slides have."""
    if "pictured" in row:
        return [name for name in row["pictured"] if galleries.get(name) is not None]
    return galleries.get(row["slide_id"]) is not None


def _name(model: Path) -> str:
    """What people call a model: its file's name, or its folder's where the file is called as they all are."""
    return model.parent.name if model.name in (MODEL, ENSEMBLE) else model.stem


def _effective(settings: RunSettings, model: Knows) -> dict[str, str]:
    """How slides are read where the settings leave it to the model, and which model that is."""
    spec = model.spec
    reads_on = settings.tolerance is not None or settings.decide is not None
    most = "as many as it takes" if reads_on and settings.samples is None else settings.samples or spec.samples
    return {
        "model digest": model_digest(settings.model),
        "patches a slide": "all"
        if spec.exhaustive
        else f"at most {most}"
        if reads_on and settings.samples
        else f"{most}",
        "patch": f"{spec.patch_px} px at {spec.patch_mpp:g} µm/px, {spec.patch_px * spec.patch_mpp:g} µm wide",
        "drawn by": "none: every patch is read" if spec.exhaustive else settings.scheme or spec.scheme,
    }


def _referred(
    counts: Counted,
    done: Sequence[tuple[CohortSlide, dict[str, Any]]],
    model: Knows,
    settings: RunSettings,
) -> dict[str, Any] | None:
    """What run.json says of calls; None where there are none."""
    rule = referral_of(settings, model)
    if rule is None:
        return None
    calls = Counter(row["call"] for _, row in done)
    told = {**rule.to_json(model.spec.classes), "calls": dict(calls)}
    calibrated = {slide.slide_id for slide, row in done if row.pop("calibrated_on")}
    labelled, seen = counts.slides, {name for name, how in counts.seen.items() if how == TRAINED}
    judged = [(slide, row) for slide, row in labelled if slide.slide_id not in calibrated]
    if judged:
        told["found"] = coverage(
            [row for _, row in judged],
            [str(row["label"]) for _, row in judged],
            [slide.patient for slide, _ in judged],
            model.spec.classes,
            sites=[slide.site for slide, _ in judged],
        )
    told["not_counted"] = sum(slide.slide_id in calibrated for slide, _ in labelled)
    told["too_sure"] = len(seen | calibrated)
    told["unlike"] = sum(any(one.startswith(UNLIKE) for one in row.get("warnings") or ()) for _, row in done)
    return told


def in_words(row: Mapping[str, Any], task: Task) -> str:
    """A row of predictions.csv for a person."""
    if row["status"] != "ok":
        return f"failed: {row['error']}" if row["status"] == "failed" else row["status"]
    ends = ([row[f"{column}{end}"] for column in task.columns] for end in ("", "_low", "_high"))
    called = f"; call: {row['call']}" if "call" in row else ""
    called += f" ({row['call_why']})" if row.get("call_why") else ""
    return (
        f"{task.in_words(*ends, exact=False)}, "
        f"read {row['patches_read']} of {row['cells']} patches ({row['fraction_read']:.1%} of the tissue's area), "
        f"{row['seconds']:.1f} s{decision_in_words(row, before='; ')}{called}"
        + "".join(f"; warning: {warning}" for warning in row.get("warnings", ()))
    )
