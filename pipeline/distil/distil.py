"""Distil an exhaustive model: its bags and its weights in, a checkpoint out that reads a few patches a slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.files import slide_stem
from pipeline.config.distil import DistilConfig
from pipeline.distil.bags import ALIKE, SlideBag, bag_view, refuse_other_encoder
from pipeline.distil.fidelity import budgets, fidelity
from pipeline.distil.fidelity import in_words as fidelity_in_words
from pipeline.distil.student import Lesson, fit_member, lesson
from pipeline.distil.teacher import train_teacher
from pipeline.errors import UsageError, reason_of
from pipeline.model.build import build_model, keep_features
from pipeline.model.checkpoint import save_model
from pipeline.model.distilled_model import DistilledModel
from pipeline.model.header import MODEL
from pipeline.model.spec import ModelSpec, misfits
from pipeline.model.values import View
from pipeline.output.documents import write_json
from pipeline.output.folder import fitting_alone, prepare_output
from pipeline.output.table import write_table
from pipeline.statistics.metrics import evaluate, in_words
from pipeline.train.calibrate import calibrate
from pipeline.train.looks import Looks
from pipeline.train.spec import configured_cohort
from stages.amounts import counted
from stages.appearance import cohort_appearance
from stages.bags.bag import Bag, BagError, find_bag, read_bag
from stages.bags.common import Tiles, most_have
from stages.mil.sizes import TeacherSizes
from stages.mil.teacher import AttentionTeacher
from stages.mil.weights import read_teacher
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError

DISTILLED = (MODEL, "fidelity.csv", "teacher.csv", "metrics.json")
"""What `saccade distil` writes."""
HELD_OUT = 4
"""Where the table does not say: every so many-th patient is held out."""
CHECKED_SLIDES = 8
"""Slides of which tiles are encoded again."""
THUMBNAIL_MPP = 8.0
ALMOST = 0.95

Say = Callable[[str], None]


def distil_cohort(config: DistilConfig, out: Path, *, say: Say) -> dict[str, Any]:
    """Distil, and write ``model.safetensors``, ``fidelity.csv``, ``teacher.csv`` and ``metrics.json``.

    The student's members are fitted to slides of split "train", each but for a part of the patients, who guide its fit
    and calibrate the intervals by what it alone says of them, with those of "val"; "test" is what fidelity is told of.
    A slide that cannot be used is left out and named with its reason.

    Raises:
        UsageError: configuration, table, teacher or folder cannot be used, or too few slides are left.
    """
    cohort = configured_cohort(config.cohort)
    classes = _classes(config, cohort.classes)
    teacher = None
    if config.teacher.weights is not None:
        try:
            teacher = read_teacher(config.teacher.weights)
        except ValueError as exc:
            raise UsageError(f"teacher.weights: {exc}") from exc
        if teacher.sizes.classes != len(classes):
            raise UsageError(
                f"the teacher has {teacher.sizes.classes} classes, the table {len(classes)}, {', '.join(classes)}: "
                "give the table that it was trained on, or cohort.label as it was"
            )
    prepare_output(out, names=DISTILLED)
    with fitting_alone(out):
        say(cohort.reading)
        work = _Distilling(config, classes, cohort, say)
        work.measure()
        return work.run(teacher, out)


def _classes(config: DistilConfig, found: Sequence[str]) -> tuple[str, ...]:
    wanted = config.teacher.classes
    if wanted is not None and sorted(wanted) != sorted(found):
        raise UsageError(
            f"teacher.classes are {', '.join(wanted)}, the table's labels {', '.join(found)}: they must be the same, "
            "in the order of the teacher's outputs"
        )
    return tuple(wanted or found)


class _Distilling:
    """One distillation: its slides, their bags, and which are left out."""

    def __init__(self, config: DistilConfig, classes: tuple[str, ...], cohort: Cohort, say: Say) -> None:
        self.config, self.classes, self.say = config, classes, say
        self.slides = tuple(sorted(cohort.slides, key=lambda slide: slide.slide_id))
        self.label = cohort.columns.get("label", "label")
        self.left_out: dict[str, str] = {}
        self.found: dict[str, SlideBag] = {}

    # -- bags ----------------------------------------------------------------------------------------------------

    def bag(self, slide: CohortSlide) -> Bag:
        told = self.config.bags
        path = find_bag(told.folder, [slide.slide_id, slide_stem(slide.path)])
        patches = None if told.patches is None else told.patches / path.name
        return read_bag(path, patches=patches, patch_px=told.patch_px, patch_mpp=told.patch_mpp)

    def _lose(self, slide: CohortSlide, exc: Exception) -> None:
        self.left_out[slide.slide_id] = reason_of(exc)
        self.say(f"left out: {slide.slide_id}: {reason_of(exc)}")

    @property
    def usable(self) -> list[CohortSlide]:
        return [slide for slide in self.slides if slide.slide_id not in self.left_out]

    def measure(self) -> None:
        """Find the tiles' size, one for all bags, and the features' length."""
        sizes: dict[str, Tiles] = {}
        for slide in self.slides:
            try:
                if slide.problem:
                    raise SlideError(slide.problem)
                bag = self.bag(slide)
                scale = open_pyramid(slide.path, mpp=slide.mpp).facts.require_mpp()
                sizes[slide.slide_id] = Tiles(bag.patch_px, bag.mpp_on(scale), int(bag.features.shape[1]))
            except SlideError as exc:
                self._lose(slide, exc)
        if not sizes:
            raise UsageError(f"no slide has a bag that can be used: {next(iter(self.left_out.values()))}")
        usual = most_have(sizes.values())
        self.px, self.mpp, self.dim = usual.px, usual.mpp, usual.dim
        for slide in self.usable:
            px, mpp, dim = (own := sizes[slide.slide_id]).px, own.mpp, own.dim
            if px != self.px or abs(mpp / self.mpp - 1) > ALIKE:
                self._lose(
                    slide,
                    BagError(
                        f"its bag has tiles of {px} px at {mpp:.4g} µm/px, most others {self.px} px at {self.mpp:.4g} "
                        "µm/px: a model reads one size; make its bag anew like theirs"
                    ),
                )
            elif dim != self.dim:
                self._lose(
                    slide,
                    BagError(
                        f"its bag has features of length {dim}, most others {self.dim}: they are of another encoder"
                    ),
                )

    def spec(self, sizes: TeacherSizes) -> ModelSpec:
        """What the model is: its cells are as large as the tiles."""
        told, pitch = self.config.student, self.px * self.mpp
        return ModelSpec(
            classes=self.classes,
            attention_mpp=pitch / max(1, round(pitch / THUMBNAIL_MPP)),
            patch_mpp=self.mpp,
            patch_px=self.px,
            attention="encoder",
            encoder=self.config.encoder.name,
            dim=sizes.dim,
            scheme=told.scheme,
            samples=told.samples,
            coarse_mpp=pitch / max(1, round(pitch / max(told.coarse_mpp, self.mpp))),
            enlarge=told.enlarge,
            components=told.components,
            uniform=told.uniform,
            members=told.members,
            precision=self.config.encoder.precision,
            teacher=sizes,
            labels=(self.label,),
        )

    # -- the work ------------------------------------------------------------------------------------------------

    def run(self, teacher: AttentionTeacher | None, out: Path) -> dict[str, Any]:
        if teacher is not None and teacher.sizes.dim != self.dim:
            raise UsageError(
                f"the teacher takes features of length {teacher.sizes.dim}, the bags have {self.dim}: give the weights "
                "that were trained on these bags"
            )
        train, val, test = self._parts()
        seed = self.config.student.seed
        if teacher is None:
            self.say(f"teacher: training gated attention on {len(train)} bags")
            teacher = train_teacher(
                lambda i: torch.from_numpy(self.bag(train[i]).features),
                [self.classes.index(str(slide.label)) for slide in train],
                [slide.patient for slide in train],
                classes=len(self.classes),
                members=self.config.teacher.members,
                epochs=self.config.teacher.epochs,
                seed=seed,
            )
        model = self._model(teacher)
        looks = Looks(model, None, self.say)
        lessons = self._lessons(model, looks, train)
        self._lessons(model, looks, (*val, *test), learn=False)
        train = [slide for slide in train if slide.slide_id in self.found]
        fold = _dealt(train, model.spec.members, seed)
        if len(set(fold.values())) < model.spec.members:
            raise UsageError(
                f"too few for student.members: {model.spec.members}: {counted(len(train), 'slide')} of "
                f"{counted(len(fold), 'patient')}; lower it, or add slides of others"
            )
        options: dict[str, Any] = {"uniform": model.spec.uniform, "epochs": self.config.student.epochs, "seed": seed}
        for member in range(model.spec.members):
            guides = [one for slide, one in zip(train, lessons, strict=True) if fold[slide.patient] == member]
            others = [one for slide, one in zip(train, lessons, strict=True) if fold[slide.patient] != member]
            fit_member(model.student, member, others, guides, say=self.say, **options)
        model.eval()
        model.trained_on = frozenset(looks.fingerprints[slide.slide_id] for slide in train)
        model.appearance = cohort_appearance([looks.appearances[slide.slide_id] for slide in train])
        calibrating = [slide for slide in (*val, *train) if slide.slide_id in self.found]
        calibrating = calibrating[: self.config.student.calibration_slides]

        def unseen(slide: CohortSlide) -> View:
            model.asked = fold.get(slide.patient)
            model.forget()
            return self.found[slide.slide_id].view

        if calibrating and not val:
            self.say(
                "warning: intervals are calibrated on slides that the teacher may have been fitted to, and may be "
                "somewhat narrow on others: give some slides of other patients the split val"
            )
        if calibrating:
            views = [lambda slide=slide: unseen(slide) for slide in calibrating]
            model.calibration = calibrate(model, views, seed=seed, say=self.say)
        model.asked = None
        model.forget()
        metrics = self._judge(model, [s for s in test if s.slide_id in self.found], out)
        save_model(model, out / MODEL)
        metrics |= {
            "slides": {"in_table": len(self.slides), "excluded": len(self.left_out), "fitted": len(lessons)},
            "tiles": {"px": self.px, "mpp": self.mpp},
            "teacher": {**asdict(teacher.sizes), "weights": self.config.teacher.weights},
            "encoder": model.backbone.card.to_json(),
            "excluded": self.left_out,
        }
        write_json(out / "metrics.json", metrics)
        return metrics

    def _model(self, teacher: AttentionTeacher) -> DistilledModel:
        spec, told = self.spec(teacher.sizes), self.config
        try:
            model = build_model(spec, encoder_weights=told.encoder.weights)
        except (ValueError, ImportError) as exc:
            raise UsageError(f"encoder: {exc}") from exc
        assert isinstance(model, DistilledModel)
        if model.feature_dim != self.dim:
            raise UsageError(
                f"the bags have features of length {self.dim}, encoder.name {spec.encoder} gives {model.feature_dim}: "
                "name the encoder that made them"
            )
        for doubt in misfits(spec, model.backbone.card):
            self.say(f"warning: {doubt}")
        keep_features(model, told.reading.features, gigabytes=told.reading.features_gb)
        model.teacher.load_state_dict(teacher.state_dict())
        torch.manual_seed(told.student.seed)
        return model.eval()

    def _parts(self) -> tuple[list[CohortSlide], list[CohortSlide], list[CohortSlide]]:
        """Slides to train on, of split val, and held out."""
        usable = self.usable
        split = {slide.slide_id: slide.split for slide in usable}
        if not any(name in ("val", "test") for name in split.values()):
            fold = _dealt(usable, HELD_OUT, self.config.student.seed)
            split = {slide.slide_id: "train" if fold[slide.patient] else "test" for slide in usable}
            held_out = sum(name == "test" for name in split.values())
            self.say(f"held out: {counted(held_out, 'slide')}, of every fourth patient")
        train, val, test = (
            [slide for slide in usable if split[slide.slide_id] == name] for name in ("train", "val", "test")
        )
        lost = next((name for name in self.classes if all(slide.label != name for slide in train)), None)
        if lost is not None:
            raise UsageError(f"no slide labelled {lost!r} is left to train on: see the lines above, or add some")
        return train, val, test

    def _lessons(
        self, model: DistilledModel, looks: Looks, slides: Sequence[CohortSlide], *, learn: bool = True
    ) -> list[Lesson]:
        """Lay each slide's cells on its bag, and take what it teaches; one that cannot be used is left out."""
        placed: list[tuple[CohortSlide, torch.Tensor]] = []
        for slide in slides:
            try:
                bag = self.bag(slide)
                found = bag_view(looks(slide), bag)
                if len(self.found) < CHECKED_SLIDES:
                    like = refuse_other_encoder(model, found, bag)
                    if like < ALMOST:
                        self.say(
                            f"warning: {slide.slide_id}: its tiles encoded again explain {like:.0%} of its features' "
                            "variance: they were read or resized otherwise; so will be those of new slides"
                        )
                found = self._known(slide, found)
                model.encode_coarse(found.view)
            except SlideError as exc:
                self._lose(slide, exc)
                continue
            self.found[slide.slide_id] = found
            if learn:
                placed.append((slide, torch.from_numpy(bag.features[found.rows])))
        if not learn:
            return []
        if not bool(model.whitening.mean.any()):
            model.whitening.fit((model.encode_coarse(self.found[s.slide_id].view) for s, _ in placed), within=True)
        return [
            lesson(model.context(self.found[slide.slide_id].view), features, model.teacher)
            for slide, features in placed
        ]

    def _known(self, slide: CohortSlide, found: SlideBag) -> SlideBag:
        """The same, whose features are the bag's."""
        cells, rows = np.flatnonzero(found.view.tissue), found.rows

        def features(some: NDArray[np.int64]) -> NDArray[np.float32]:
            return self.bag(slide).features[rows[np.searchsorted(cells, some)]]

        return replace(found, view=replace(found.view, features=features))

    def _judge(self, model: DistilledModel, slides: Sequence[CohortSlide], out: Path) -> dict[str, Any]:
        """Fidelity on held-out slides."""
        if not slides:
            self.say("nothing is held out: no fidelity; give some slides the split test")
            return {}
        views = [lambda s=s: self.found[s.slide_id].view for s in slides]
        counts = budgets(model, [len(self.found[s.slide_id].rows) for s in slides])
        told = [(s.slide_id, s.patient, str(s.label)) for s in slides]
        rows, exact = fidelity(model, told, views, counts=counts, seed=self.config.student.seed)
        write_table(out / "fidelity.csv", rows)
        write_table(
            out / "teacher.csv",
            [
                {
                    "slide_id": name,
                    "label": label,
                    **{f"prob_{c}": p for c, p in zip(self.classes, exact[name], strict=True)},
                }
                for name, _, label in told
            ],
        )
        labels, patients = [label for _, _, label in told], [patient for _, patient, _ in told]
        scores = evaluate(labels, np.stack([exact[name] for name, _, _ in told]), patients, self.classes)
        self.say(f"the teacher, all tiles: {in_words(scores)}")
        auroc = scores["auroc"]["value"]
        if auroc is not None and auroc < 0.5:
            self.say("warning: the teacher is worse than chance: are its outputs in another order? see teacher.classes")
        for row in rows:
            self.say(fidelity_in_words(row))
        return {"teacher_metrics": scores, "fidelity": rows}


def _dealt(slides: Sequence[CohortSlide], folds: int, seed: int) -> dict[str, int]:
    """A fold for each patient, dealt like cards within each class."""
    labels: dict[str, str] = {}
    for slide in slides:
        labels.setdefault(slide.patient, str(slide.label))
    rng = np.random.default_rng(seed)
    kinds = [sorted(who for who, label in labels.items() if label == kind) for kind in sorted(set(labels.values()))]
    order = [who for people in kinds for who in rng.permutation(people).tolist()]
    return {who: place % folds for place, who in enumerate(order)}
