"""A bench: every unseen slide of a cohort is read whole, then drawn in every way; how many patches are enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.asked import check_budget, refuse_patients
from pipeline.bench.recommend import recommend
from pipeline.bench.slide import BenchSettings, bench_slide
from pipeline.bench.table import Person, in_words, table_of
from pipeline.bench.ways import ways_of
from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.labels import known_label, refuse_unknown_labels
from pipeline.cohort.patients import refuse_two_labels
from pipeline.errors import UsageError, is_exhaustion, reason_of
from pipeline.model.build import keep_features
from pipeline.model.checkpoint import load_model, refuse_ensemble
from pipeline.model.header import find_model, model_digest
from pipeline.model.look import look
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import task_of
from pipeline.output.folder import BENCH, prepare_output
from pipeline.output.run_record import write_run
from pipeline.output.table import write_table
from pipeline.task.task import Task
from stages.amounts import counted
from stages.disk import new_file
from stages.html import table
from stages.sampling.schemes import SCHEMES

TOLERANCES = (0.1, 0.05, 0.02)
MOST_SAMPLES = 512
"""Of what is tried unless the user says otherwise: powers of two from 4 to this, and the model's own number."""
METERED_SLIDES = 4
"""Slides that are read afresh to measure what reading costs."""
MOST_DRAWS = 1000

BenchProgress = Callable[[int, int, str | None], None]


@dataclass(frozen=True, slots=True)
class BenchSummary:
    """What a bench came to; a notebook shows its table.

    Attributes:
        task: what is predicted.
        samples: patches a slide that are recommended; None: none that was tried is enough.
        words: the recommendation, its rule and what to do.
        rows: of bench.csv, by column.
        slides: how many were compared.
        failed: why others could not be, by their names.
        left_out: how many are not compared, by why: the model was trained on them, or their split is another
            ("train", "val").
        notes: what is not in the table, and why.
    """

    task: Task = field(repr=False)
    samples: int | None
    words: str
    rows: list[dict[str, Any]] = field(repr=False)
    slides: int
    failed: dict[str, str]
    left_out: dict[str, int]
    notes: list[str] = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """All of it as lines of text."""
        told = [
            f"{counted(self.slides, 'slide')}, {self.rows[0]['cells']:.0f} patches each in the mean",
            *in_words(self.rows, self.task),
        ]
        if self.left_out:
            told.append("left out: " + ", ".join(f"{count} {why}" for why, count in self.left_out.items()))
        return [*told, *self.notes, self.words]

    def _repr_html_(self) -> str:
        names = ("way", "setting", "patches", "bytes", self.task.metric.key, "difference", "agreement")
        shown = [[_cell(row.get(name)) for name in names] for row in self.rows]
        return table(shown, header=names, caption=self.words)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def bench_cohort(
    cohort: Cohort,
    checkpoint: Path,
    out: Path,
    *,
    samples: Sequence[int] | None = None,
    draws: int = 20,
    slides: int | None = None,
    split: str | None = None,
    tolerances: Sequence[float] = TOLERANCES,
    seed: int = 0,
    device: str = "auto",
    encoder_weights: Path | None = None,
    features: Path | None = None,
    progress: BenchProgress | None = None,
    within: Callable[[str], None] | None = None,
) -> BenchSummary:
    """Compare ways to read slides, and write ``bench.csv``, ``bench.json`` and ``bench.png`` into ``out``.

    Args:
        cohort: slides, of which those that the model was trained on are left out.
        checkpoint: a trained model, or its folder.
        out: the folder; slides that an earlier bench finished are not read again.
        samples: patches a slide to try; default: powers of two, and the model's own number.
        draws: of each slide, way and setting.
        slides: at most so many, chosen at random, of every class alike; default: all.
        split: only slides of this split of the table; default: those of test, or of no split.
        tolerances: see `SlideModel.sample`.
        seed: of the draws, and of the choice of slides.
        device, encoder_weights, features: as `saccade.run`'s.
        progress: called with (slides finished, slides in all, a line about the last one).
        within: told how far the slide is that is being read.

    Raises:
        UsageError: the model, the cohort or the folder cannot be used, or no slide is left to compare on.
    """
    path = find_model(checkpoint).resolve()
    model = keep_features(load_model(path, device=device, encoder_weights=encoder_weights), features)
    refuse_ensemble(model, path)
    refuse_patients(model.spec, "`saccade bench`")
    tried = _checked(model, path, samples, draws, slides, tolerances)
    task = task_of(model.spec)
    refuse_unknown_labels(cohort, task, path, without=f"to compare without {task.metric.name}")
    refuse_two_labels(cohort.slides, task, cohort.source)
    if split is None:
        unseen = [slide for slide in cohort.slides if slide.split in (None, "test")]
    else:
        unseen = list(cohort.of_split(split))
    left_out = _count(slide.split or "of no split" for slide in cohort.slides if slide not in unseen)
    if not unseen:
        raise UsageError(f"{cohort.source}: every slide is to train or to choose with; a bench needs slides of neither")
    if slides is not None:
        unseen = _in_turn(unseen, task, seed)
    wanted = len(unseen) if slides is None else min(slides, len(unseen))
    prepare_output(out, names=BENCH)
    (out / "slides").mkdir(exist_ok=True)
    ways, unlike = ways_of(model.spec, tried, tolerances)
    settings = BenchSettings(ways, draws, seed, model_digest(path), encoder_weights)
    records: list[dict[str, Any]] = []
    people: list[Person] = []
    failed: dict[str, str] = {}
    for slide in unseen:
        if len(records) >= wanted:
            break
        try:
            if slide.problem:
                raise ValueError(slide.problem)
            found = look(slide.path, model, mpp=slide.mpp)
            if found.slide.facts.fingerprint in model.trained_on:
                left_out["trained on"] = left_out.get("trained on", 0) + 1
                wanted = min(wanted, len(unseen) - left_out["trained on"])
                continue
            record = bench_slide(
                slide,
                found,
                model,
                settings,
                out / "slides" / f"{slide.slide_id}.json",
                meter=len(records) < METERED_SLIDES,
                say=within or (lambda line: None),
            )
        except Exception as exc:
            if is_exhaustion(exc):
                raise
            failed[slide.slide_id] = reason_of(exc)
            told = f"{slide.slide_id}: failed: {failed[slide.slide_id]}"
        else:
            records.append(record)
            cells = known_label(slide, task)
            people.append(Person(slide.patient, None if cells is None else task.label_row(cells)))
            told = f"{slide.slide_id}: {record['cells']} patches"
        if progress:
            progress(min(len(records) + len(failed), wanted), wanted, told)
    if not records:
        if failed:
            name, why = next(iter(failed.items()))
            raise UsageError(f"no slide of {cohort.source} could be read; {name}: {why}")
        raise UsageError(f"{cohort.source}: the model was trained on every slide; a bench needs others")
    return _finish(cohort, path, out, model, settings, records, people, failed, left_out, unlike)


def _finish(
    cohort: Cohort,
    path: Path,
    out: Path,
    model: SlideModel,
    settings: BenchSettings,
    records: Sequence[Mapping[str, Any]],
    people: Sequence[Person],
    failed: dict[str, str],
    left_out: dict[str, int],
    unlike: str | None,
) -> BenchSummary:
    from pipeline.bench.picture import bench_figure, save_bench

    cells = float(np.mean([record["cells"] for record in records]))
    task = task_of(model.spec)
    rows = [{**row, "cells": cells} for row in table_of(records, people, task)]
    recommended = recommend(rows, task, own=model.spec.samples)
    notes = [] if unlike is None else [f"not compared: {unlike}"]
    if task.metric.key not in rows[0]:
        why = "two classes" if task.kind == "classification" else "slides that can be compared"
        notes.append(f"no {task.metric.name}: it needs labels of {why}")
    if "wh" not in rows[0]:
        gpu = "on a GPU, whose share it does not tell" if model.device.type != "cpu" else "this machine tells none"
        notes.append(f"no energy (Wh): {gpu}; CPU seconds stand for it")
    metered = sum("spent" in record for record in records)
    notes.append(
        f"seconds: of reading and encoding afresh, one slide after the other, measured on {counted(metered, 'slide')}"
    )
    summary = BenchSummary(
        task, recommended.samples, recommended.words, rows, len(records), failed, dict(left_out), notes
    )
    write_table(out / "bench.csv", rows)
    write_run(
        out / "bench.json",
        {
            "cohort": cohort.source,
            "model": path,
            "model_digest": settings.digest,
            "draws": settings.draws,
            "seed": settings.seed,
            "slides": [record["slide_id"] for record in records],
            "failed": failed,
            "left_out": left_out,
            "recommended_samples": recommended.samples,
            "recommendation": recommended.words,
            "notes": notes,
            "rows": rows,
        },
    )
    title = f"{cohort.source.name}: {counted(len(records), 'slide')}, {cells:.0f} patches each in the mean"
    fine = (
        "p*: the prediction after reading everything, p: after so many patches. Bands: of the difference 95 % over "
        f"patients; of {task.metric.name} 90 % of the draws, which is what reading leaves open; grey: "
        "95 % over patients, of reading everything. MB: with the thumbnail and all that is read coarsely."
    )
    figure = bench_figure(rows, recommended, task, title=title, fine=fine)
    with new_file(out / "bench.png") as temporary:
        save_bench(temporary, figure)
    return summary


def _checked(
    model: SlideModel,
    path: Path,
    samples: Sequence[int] | None,
    draws: int,
    slides: int | None,
    tolerances: Sequence[float],
) -> list[int]:
    """The numbers of patches to try."""
    spec = model.spec
    if spec.exhaustive:
        raise UsageError(f"{path} reads every cell, whatever it is asked for: there is no number of patches to choose")
    if not 1 <= draws <= MOST_DRAWS:
        raise UsageError(f"draws must be from 1 to {MOST_DRAWS}, found {draws}")
    if slides is not None and slides < 1:
        raise UsageError(f"slides must be at least 1, found {slides}")
    for tolerance in tolerances:
        if not 0 < tolerance <= 1:
            raise UsageError(f"tolerance must lie above 0 and be at most 1, found {tolerance:g}; such as 0.02")
    if samples is None:
        doubled = {2**k for k in range(2, MOST_SAMPLES.bit_length()) if 2**k >= model.spec.fewest}
        return sorted(n for n in doubled | {spec.samples} if SCHEMES[spec.scheme].judges(n))
    if not samples:
        raise UsageError("samples: give at least one number of patches, such as 8,16,32")
    for n in samples:
        check_budget(spec, samples=n, scheme=None)
    return sorted(set(samples))


def _count(names: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def _in_turn(slides: Sequence[CohortSlide], task: Task, seed: int) -> list[CohortSlide]:
    """In a random order in which classes, or what else folds hold evenly, take turns."""
    random = np.random.default_rng(seed)
    by_label: dict[str, list[CohortSlide]] = {}
    for place in random.permutation(len(slides)):
        cells = known_label(slides[place], task)
        by_label.setdefault("" if cells is None else task.stratum(cells), []).append(slides[place])
    ranked = [(rank, name, one) for name, ones in sorted(by_label.items()) for rank, one in enumerate(ones)]
    return [one for _, _, one in sorted(ranked, key=lambda item: item[:2])]
