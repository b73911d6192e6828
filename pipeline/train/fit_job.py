"""One model of a training: fitted to its slides, or loaded where the same one was fitted before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.patients import slides_of
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.model.build import Ensemble, build_model, keep_features
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.header import told_of_encoder
from pipeline.model.quality import Quality
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec, task_of
from pipeline.model.values import View
from pipeline.output.documents import read_json, write_json
from pipeline.refer.calibrate import calibrate_labels, calibration_key, in_lines
from pipeline.refer.scores import budgets_of
from pipeline.train.bagging import bagged, settle
from pipeline.train.held_out import out_of_bag_rows, scored
from pipeline.train.job import CROSS, Job, aside, begin, end, is_its_own, put
from pipeline.train.journal import Journal
from pipeline.train.key import compared, differences, made_of, restated
from pipeline.train.looks import Known, Looks
from pipeline.train.slides import TrainingSlides
from pipeline.train.spec import cache_in, encoder_of, fit_settings, prior_in, prior_of
from pipeline.train.verdict import Losses
from stages.amounts import counted
from stages.appearance import FEWEST, cohort_appearance
from stages.patch_memory import PatchMemory

if TYPE_CHECKING:
    from pipeline.train.share import Share

Say = Callable[[str], None]


def keeping(model: SlideModel, config: Config) -> SlideModel:
    return keep_features(model, config.reading.features, gigabytes=config.reading.features_gb)


def chooses(config: Config) -> bool:
    """Whether slides of val, where there are any, choose the epoch."""
    return config.training.keep == "best" or config.training.patience is not None


def refuse_lost_class(job: Job, spec: ModelSpec, looks: Looks) -> None:
    """A model needs a slide of every class to learn from."""
    usable = {slide.label for slide in job.train if looks.lost(slide) is None}
    if spec.task != "classification":
        if not usable:
            raise UsageError(f"{job.name} has no slide left to train on, all {len(job.train)} are left out")
        return
    for label in spec.classes:
        if label not in usable:
            lost = [slide for slide in job.train if slide.label == label]
            if not lost:
                raise UsageError(
                    f"{job.name} has no slide labelled {label!r} to train on: add some, or move some to it"
                )
            raise UsageError(
                f"{job.name} has no slide labelled {label!r} left to train on, all {len(lost)} are left out: restore "
                f"some or add others; {lost[0].slide_id}: {looks.lost(lost[0])}"
            )


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model after its fit: what its members say of slides that they had not seen (probabilities of the classes by
    the slide's name), and where its loss ended."""

    model: SlideModel
    out_of_bag: dict[str, list[float]]
    losses: Losses | None


def stamp(job: Job, fitted: Fitted, quality: Quality) -> None:
    """Write into a checkpoint how good its model was found to be."""
    if fitted.model.quality != quality:
        fitted.model.quality = quality
        save_model(fitted.model, job.model)


def calibrate_calls(job: Job, fitted: Fitted, config: Config, looks: Looks, say: Say) -> None:
    """Let a model that has a val part know how often its calls are right, from slides that it was not fitted to."""
    val = [slide for slide in job.val if looks.lost(slide) is None]
    model, seed = fitted.model, config.training.seed
    if model.spec.task != "classification" or model.spec.unit == "patient":
        return
    missing = [name for name in model.spec.classes if all(slide.label != name for slide in val)]
    if not val:
        return
    if missing and len(model.spec.classes) == 2:
        say(f"label sets: no slide of val is labelled {missing[0]!r}, so none are calibrated")
        return
    key = calibration_key([(s, looks.facts[s.slide_id].content) for s in val], budgets_of(model.spec), seed=seed)
    if model.label_calibration is not None and model.label_calibration.key == key:
        return
    found = calibrate_labels(
        model,
        val,
        looks,
        seed=seed,
        source="split val of the training" if "val" in job.held_out else "patients held out of the training",
        doubt="the epoch was chosen by the same slides, for which calls may seem too good" if chooses(config) else None,
        say=say,
        leave_out=looks.leave_out,
    )
    if found is not None:
        for line in in_lines(found, model.spec.classes):
            say(line)
        model.label_calibration = found
        save_model(model, job.model)


def fit_job(job: Job, spec: ModelSpec, config: Config, looks: Looks, say: Say) -> Fitted:
    """Fit one model, or load it where the same one was fitted before."""
    job.folder.mkdir(parents=True, exist_ok=True)
    settings = fit_settings(config, spec)
    val = job.val
    samples = config.sampling.train_samples or spec.samples
    made = made_of(
        job.parts,
        facts=looks.usable(),
        spec=spec,
        settings={**settings, "train_samples": samples, **prior_of(job, config), **encoder_of(spec, config)},
        weights=config.encoder.weights,
        chooses="val" if chooses(config) else None,
    )
    earlier = read_json(job.folder / "training.json") or {}
    made = compared(earlier.get("made_of"), made, looks.facts)
    if job.model.exists():
        changes = differences(earlier.get("made_of"), made) or _readable_again(job, earlier, looks)
        stale = f"is of another training: {'; '.join(changes)}"
        model: SlideModel | None = None
        if not changes:
            try:
                model = load_model(job.model, device=config.training.device, encoder_weights=config.encoder.weights)
                model = keeping(model, config)
            except UsageError as exc:  # the encoder is here, as the untrained model has shown
                stale = f"is fitted again: {exc}"
        if model is not None:
            say(f"{job.model} is up to date")
            if model.validated_on != _validated_on(made):  # of a version that did not record them
                model.validated_on = _validated_on(made)
                save_model(model, job.model)
            told = {**earlier, "made_of": restated(earlier["made_of"], made)}
            if told != earlier:
                write_json(job.folder / "training.json", told)
            end(job, made, looks.facts)
            for slide in slides_of(job.train + val):
                if slide.slide_id in earlier["left_out"]:
                    looks.leave_out(slide, earlier["left_out"][slide.slide_id])
            losses = earlier.get("losses")
            return Fitted(model, earlier.get("out_of_bag", {}), Losses(**losses) if losses else None)
    begun, key = begin(job, made, looks.facts)
    replaces = job.model.exists() and not is_its_own(job, begun)
    if replaces:
        say(f"{job.model} {stale}; it moves to {aside(job)} when the new one is there")
    before = set(looks.excluded)

    def lose(index: int, reason: str) -> None:
        looks.leave_out(job.train[index], reason)
        refuse_lost_class(job, spec, looks)

    model = _new_model(spec, config)
    started = time.perf_counter()
    from pipeline.train.fit import fit  # Lightning takes seconds to import
    from pipeline.train.processes import sharing
    from pipeline.train.steps import DivergedError

    checkpoint = begun.with_suffix(".ckpt")
    # the curve of a model that stands here stays beside it until it is put aside
    live = begun.with_suffix(".csv") if replaces else job.folder / "curve.csv"
    task = task_of(spec)
    given = _given(job, spec, config, looks)
    if config.training.patience and given["validation"] is None:
        say("warning: training.patience needs slides of split val, or training.inner_val: it trains all epochs")
    try:
        with sharing(config.training.devices, _take_part, job, spec, config, looks.known, checkpoint) as share:
            curve = fit(
                model,
                **given,
                checkpoint=checkpoint,
                say=say,
                leave_out=lose,
                curve=live,
                events=job.folder / "tensorboard" / begun.stem if config.training.tensorboard else None,
                share=share,
            )
    except DivergedError:
        write_json(begun, {"key": key, "made_of": made, "diverged": True})
        raise
    model.eval()
    out_of_bag: dict[str, list[float]] = {}
    spread = None
    if isinstance(model, Ensemble):
        gone = _lost(job.train, looks)
        seed = config.training.seed
        targets, patients, bags = bagged(job.train, task, spec.members, seed=seed)
        within = TrainingSlides(len(targets), given["view"], lose, gone)
        within.phase = "the judging of the members"
        judged = settle(model, within, targets, patients, bags, samples=samples, seed=seed)
        names = [job.train[i].slide_id for i in judged.slides]
        out_of_bag = dict(zip(names, judged.values.tolist(), strict=True))
        spread = judged.spread
        rows = out_of_bag_rows(job.train, out_of_bag, task, looks.excluded)
        if rows and CROSS in job.held_out:  # the last one's are told with the other parts
            say(f"{job.name}, out of bag: {task.told_of(scored(rows, task))}")
        say(f"{job.name}: its {spec.members} members differ by {spread:.2f} in {task.unit}, mean over slides")
    fitted = [slide.slide_id for slide in slides_of(job.train) if slide.slide_id not in before]
    model.trained_on = frozenset(looks.fingerprints[name] for name in fitted)
    model.validated_on = _validated_on(made)
    shown = [looks.appearances[name] for name in fitted if name in looks.appearances]
    model.appearance = cohort_appearance(shown) if shown else None
    if model.appearance is not None and not model.appearance.known:
        say(
            f"too few to tell later whether another slide looks like them: {counted(len(fitted), 'slide')} to train "
            f"on; that takes {FEWEST} of one field"
        )
    put(model, job, begun)
    if replaces:
        Journal(job.folder / "curve.csv", say=say).end(curve)
    ended = curve.losses
    losses = None if ended is None or curve.base is None or math.isnan(ended[0]) else Losses(*ended, curve.base)
    done = {
        "key": key,
        "kept_epoch": curve.kept,
        "losses": losses and asdict(losses),
        "out_of_bag": out_of_bag,
        "spread_of_members": spread,
        "seconds": time.perf_counter() - started,
        "left_out": {name: why for name, why in looks.excluded.items() if name not in before},
        "config": config.model_dump(mode="json"),
        "encoder": told_of_encoder(model),
        "made_of": made,
    }
    write_json(job.folder / "training.json", done)
    end(job, made, looks.facts)
    count = sum(slide.slide_id not in looks.excluded for slide in slides_of(job.train))
    say(f"fitted on {counted(count, 'slide')} in {done['seconds']:.0f} s: {job.model}")
    return Fitted(model, out_of_bag, losses)


def _new_model(spec: ModelSpec, config: Config) -> SlideModel:
    torch.manual_seed(config.training.seed)
    return keeping(build_model(spec, encoder_weights=config.encoder.weights), config)


def _lost(slides: Sequence[CohortSlide], looks: Looks) -> dict[int, str]:
    return {i: why for i, slide in enumerate(slides) if (why := looks.lost(slide)) is not None}


def _given(job: Job, spec: ModelSpec, config: Config, looks: Looks) -> dict[str, Any]:
    """What `fit` is told of a job, the same in each process that takes part."""
    task, val = task_of(spec), job.val
    memory = PatchMemory(round(config.reading.patches_gb * 1e9 / config.training.devices))

    def view(row: CohortSlide) -> View:
        found = looks.seen(row).view
        # of a frozen encoder features are kept, and a patient's slides are read each by itself
        if spec.frozen or found.parts or not config.reading.patches_gb:
            return found
        return replace(found, patches=partial(memory.read, row.slide_id, found.patches, found.tissue))

    members = partial(_leave_out_members, job, looks) if spec.unit == "patient" else None
    targets, _, bags = bagged(job.train, task, spec.members, seed=config.training.seed)
    held_out = TrainingSlides(
        len(val),
        lambda index: view(val[index]),
        lambda index, reason: looks.leave_out(val[index], reason),
        _lost(val, looks),
        members,
    )
    judges = len(held_out.lost) < held_out.count
    return {
        "view": lambda index: view(job.train[index]),
        "targets": targets,
        "samples": config.sampling.train_samples or spec.samples,
        "bags": bags,
        "lost": _lost(job.train, looks),
        "members": members,
        "names": [slide.slide_id for slide in job.train],
        "validation": (held_out, task.tensor([slide.cells(task.labels) for slide in val])) if judges else None,
        "device": config.training.device,
        **fit_settings(config, spec),
    }


def _leave_out_members(job: Job, looks: Looks, lost: Mapping[str, str]) -> dict[str, str]:
    """Leave out some slides of the patients that a job is fitted to or chosen by, and tell all that are."""
    own = {slide.slide_id: slide for slide in slides_of(job.train + job.val)}
    for name, reason in lost.items():
        looks.leave_out(own[name], reason)
    return {name: reason for name, reason in looks.excluded.items() if name in own}


def _take_part(job: Job, spec: ModelSpec, config: Config, known: Known, checkpoint: Path, share: Share) -> None:
    """What another process does of a fit."""
    from pipeline.train.fit import fit

    def quiet(line: str) -> None: ...

    model = _new_model(spec, config)
    looks = Looks(model, cache_in(config), quiet, prior=prior_in(config), known=known)
    given = _given(job, spec, config, looks)

    def lose(index: int, reason: str) -> None:
        looks.leave_out(job.train[index], reason)

    fit(model, **given, checkpoint=checkpoint, say=quiet, leave_out=lose, share=share)


def _validated_on(made: Mapping[str, Any]) -> frozenset[str]:
    """Fingerprints of the slides that a model was not fitted to and yet follows from."""
    others = (slide for slide in made["slides"].values() if slide["role"] != "train")
    return frozenset(s["fingerprint"] for s in others if s["fingerprint"] and s["chooses"])


def _readable_again(job: Job, earlier: dict[str, Any], looks: Looks) -> list[str]:
    """Whether slides that were left out can be read by now, as a difference in words."""
    by_name = {slide.slide_id: slide for part in job.parts.values() for slide in slides_of(part)}
    lost = [by_name[name] for name in earlier.get("left_out", {}) if name in by_name and name not in looks.excluded]
    names = [slide.slide_id for slide in lost if looks.reads_whole(slide)]
    return [f"{len(names)} of the slides that were left out can be read now ({', '.join(names)})"] if names else []
