"""A model beside plain ways to read a slide, on the same splits and features, in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError, reason_of
from pipeline.model.build import build_model
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.header import model_digest
from pipeline.model.look import Look
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec, task_of
from pipeline.model.values import View
from pipeline.output.documents import read_json, write_json
from pipeline.output.table import write_table
from pipeline.train.bagging import bagged, settle
from pipeline.train.baselines import Baseline, Reading, baselines
from pipeline.train.checkpoints import remove
from pipeline.train.comparison import in_words, judged
from pipeline.train.fit import fit
from pipeline.train.job import Job
from pipeline.train.key import compared, key_of, made_of
from pipeline.train.looks import Looks
from pipeline.train.rates import default_rate
from pipeline.train.slides import TrainingSlides
from stages.slide.facts import SlideError

COMPARISON = "comparison.csv"
COMPARE_VERSION = 1
"""Raised when a change here changes a row, so that earlier ones count as stale."""
ITSELF = "this model"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a model is compared under.

    Attributes:
        looks: at the slides; those that were left out stay so.
        samples: patches a slide of the baselines that read some.
        settings, device: of the fit, as the model's.
        weights: of the encoder, which all share.
        keep: lets a model keep its features where the model compared does.
        say: told of progress, and the table.
    """

    looks: Looks
    samples: int
    settings: Mapping[str, Any]
    device: str
    weights: Path | None
    keep: Callable[[SlideModel], SlideModel]
    say: Callable[[str], None]

    @property
    def seed(self) -> int:
        """Of the fit and the draws."""
        return int(self.settings["seed"])

    def __call__(self, jobs: Sequence[Job], models: Sequence[SlideModel], out: Path) -> list[dict[str, Any]]:
        """Fit every baseline as the model was, judge all on the same held-out slides, and write ``comparison.csv``.

        A baseline's row that is there is used again; of one that was interrupted, what it said of finished folds is.

        Args:
            jobs, models: what was fitted, and the models; of repeated cross-validations the first is compared.
            out: the training's folder.

        Returns:
            The table's rows.
        """
        held = [(job, model) for job, model in zip(jobs, models, strict=True) if job.held_out and not job.repeat]
        task = task_of(models[0].spec)
        self.say("comparison: every cell of every slide is read at the finest scale, and encoded where it was not yet")
        own: list[dict[str, Any]] = []
        spent = 0.0
        for job, model in held:
            own += self._predicted(ITSELF, model, job, lambda slide: (self.looks(slide), self.looks(slide).view))
            spent += float((read_json(job.folder / "training.json") or {}).get("seconds", 0.0))
        table = judged(ITSELF, own, own, task, seconds=spent)
        for baseline in baselines(models[0].spec, self.samples):
            try:
                done = [self._row(baseline, job, model) for job, model in held]
            except UsageError as exc:  # one that cannot be fitted costs its row
                self.say(f"comparison: {baseline.name}: no row: {exc}")
                continue
            rows = [row for one in done for row in one["rows"]]
            table += judged(baseline.name, rows, own, task, seconds=sum(one["seconds"] for one in done))
        order = list(dict.fromkeys(row["part"] for row in own))
        table = [row for part in order for row in table if row["part"] == part]
        write_table(out / COMPARISON, table)
        for line in in_words(table, task):
            self.say(line)
        return table

    def _row(self, baseline: Baseline, job: Job, model: SlideModel) -> dict[str, Any]:
        """What a baseline says of a job's held-out slides, from its file where it is there."""
        looks = self.looks
        spec = replace(
            model.spec,
            head=baseline.head,
            samples=0,
            block=1,
            coarse_mpp=None,
            enlarge=1.0,
            context=baseline.context,
            fine_components=0,
            uniform=0.0,
        )
        settings = {**self.settings, "learning_rate": default_rate(spec)}
        made = made_of(
            job.parts,
            facts=looks.usable(),
            spec=spec,
            settings={**settings, "reads": [baseline.rule, baseline.cells], "comparison": COMPARE_VERSION},
            weights=self.weights,
        )
        if baseline.rule == "attention":
            made["attention"] = model_digest(job.model)
        folder = job.folder / "compare"
        folder.mkdir(exist_ok=True)
        path = folder / f"{baseline.head}-{baseline.rule}.json"
        earlier = read_json(path) or {}
        made = compared(earlier.get("made_of"), made, looks.facts)
        key = key_of(made, every=True)
        if earlier.get("key") == key:
            self.say(f"comparison: {baseline.name}: {path} is up to date")
            if earlier.get("made_of") != made:
                write_json(path, {**earlier, "made_of": made})
            return earlier
        started = time.perf_counter()
        reading = Reading(baseline, model, looks, self.seed)
        fitted = self._fitted(reading, job, spec, settings, path.with_suffix(".ckpt"))
        seconds = time.perf_counter() - started
        rows = self._predicted(baseline.name, fitted, job, lambda slide: (reading.look(slide), reading.view(slide)))
        done = {"key": key, "made_of": made, "seconds": seconds, "rows": rows}
        write_json(path, done)
        return done

    def _fitted(
        self, reading: Reading, job: Job, spec: ModelSpec, settings: Mapping[str, Any], checkpoint: Path
    ) -> ExhaustiveModel:
        name, train, excluded = reading.baseline.name, job.train, self.looks.excluded
        lost = {i: excluded[slide.slide_id] for i, slide in enumerate(train) if slide.slide_id in excluded}
        turns = [0] * len(train)

        def view(index: int) -> View:
            turns[index] += 1
            return reading.view(train[index], turns[index])

        def lose(index: int, reason: str) -> None:
            lost[index] = reason
            self.say(f"comparison: {name}: left out: {train[index].slide_id}: {reason}")
            if all(slide.stratum != train[index].stratum for i, slide in enumerate(train) if i not in lost):
                raise UsageError(f"no slide of {train[index].stratum!r} is left to train on")

        torch.manual_seed(self.seed)
        model = self.keep(build_model(spec, encoder_weights=self.weights))
        assert isinstance(model, ExhaustiveModel)
        targets, patients, bags = bagged(train, task_of(spec), spec.members, seed=self.seed)
        remove(checkpoint)  # a row is fitted in one go
        self.say(f"comparison: {name}: fitting")
        fit(
            model,
            view,
            targets,
            checkpoint=checkpoint,
            samples=0,
            say=lambda line: None,
            bags=bags,
            leave_out=lose,
            lost=dict(lost),
            device=self.device,
            **settings,
        )
        remove(checkpoint)
        model.eval()
        within = TrainingSlides(len(targets), view, lose, dict(lost))
        within.phase = "the judging of the members"
        settle(model, within, targets, patients, bags, samples=0, seed=self.seed)
        return model

    def _predicted(
        self, name: str, model: SlideModel, job: Job, read: Callable[[CohortSlide], tuple[Look, View]]
    ) -> list[dict[str, Any]]:
        """Of each held-out slide, what a model says of what is read of it, and what that cost."""
        rows = []
        task = task_of(model.spec)
        for part, slides in job.held_out.items():
            for slide in slides:
                if slide.slide_id in self.looks.excluded:
                    continue  # which was said
                try:
                    shown, view = read(slide)
                    started = time.perf_counter()
                    sampled = model.sample(view, generator=shown.generator(self.seed, model.drawing_device))
                    seconds = time.perf_counter() - started
                    cost = shown.count(sampled.cells, sampled.opened)
                except SlideError as exc:
                    self.say(f"comparison: {name}: left out: {slide.slide_id}: when predicted: {reason_of(exc)}")
                    continue
                rows.append(
                    {
                        "part": part,
                        "slide_id": slide.slide_id,
                        "patient": slide.patient or slide.slide_id,
                        **task.label_row(slide.cells(task.labels)),
                        "patches": len(sampled.cells),
                        "bytes": cost.bytes,
                        "seconds": seconds,
                        **dict(zip(task.columns, sampled.prediction.values.tolist(), strict=True)),
                    }
                )
        return rows
