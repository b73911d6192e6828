"""Train the model on a cohort, slide labels only, end to end; cross-validate; keep all that resuming needs."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.cohort.metrics import in_words
from pipeline.cohort.splits import check_folds, refuse_twins
from pipeline.cohort.table import CohortSlide, read_training_table
from pipeline.config import Config
from pipeline.device import find_device
from pipeline.errors import UsageError
from pipeline.model.build import OnFrozenEncoder, backbone_of, build_model, keep_features, told_of_encoder
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.quality import Quality
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import ModelSpec
from pipeline.output.documents import read_json, write_json
from pipeline.output.folder import TRAINING, prepare_output
from pipeline.output.table import prediction_columns, write_table
from pipeline.train.bagging import draw_bags, settle
from pipeline.train.calibrate import calibrate
from pipeline.train.compare import Comparison
from pipeline.train.held_out import OUT_OF_BAG, in_lines, out_of_bag_rows, predicted, scored
from pipeline.train.job import Job, aside, begin, keep_aside, plan_jobs
from pipeline.train.key import differences, made_of
from pipeline.train.looks import Looks
from pipeline.train.rates import default_rate
from pipeline.train.slides import TrainingSlides
from pipeline.train.verdict import Losses, closing, judge_quality
from stages.appearance import FEWEST, cohort_appearance
from stages.given_map import MapError, find_map
from stages.pyramid.chunk_cache import chunk_cache

Say = Callable[[str], None]


def model_spec(config: Config, classes: Sequence[str]) -> ModelSpec:
    """What a configuration says of the model itself."""
    return ModelSpec(
        classes=tuple(classes),
        attention_mpp=config.view.attention_mpp,
        patch_mpp=config.view.patch_mpp,
        patch_px=config.view.patch_px,
        attention=config.attention.kind,
        encoder=config.encoder.name,
        dim=config.encoder.dim,
        scheme=config.sampling.scheme,
        control=config.sampling.control_variate,
        inner_mpp=config.attention.inner_mpp,
        region_cells=config.attention.region_cells if config.attention.inner_mpp else 1,
        region_samples=config.attention.region_samples if config.attention.inner_mpp else 1,
        snap=config.sampling.snap,
        tune=config.encoder.tune,
        **{
            "samples": config.sampling.samples,
            "block": config.sampling.block,
            **(_on_frozen(config) if config.attention.kind == "encoder" else {}),
        },
    )


def _on_frozen(config: Config) -> dict[str, Any]:
    """What a specification says of a model on a frozen encoder only."""
    told = config.attention
    if config.model.kind == "exhaustive":
        return {
            "head": config.model.head,
            "context": told.context if config.model.head == "evidence" else (),
            "components": told.components,
            "members": config.training.members,
            "samples": 0,
            "block": 1,
        }
    return {
        "coarse_mpp": told.coarse_mpp,
        "enlarge": told.enlarge,
        "context": told.context,
        "components": told.components,
        "fine_components": told.fine_components,
        "uniform": told.uniform,
        "precision": config.encoder.precision,
        "members": config.training.members,
    }


def _keeping(model: SlideModel, config: Config) -> SlideModel:
    return keep_features(model, config.reading.features, gigabytes=config.reading.features_gb)


def train_cohort(config: Config, out: Path, *, say: Say, strict: bool = False) -> dict[str, Any]:
    """Train on the configured cohort and write ``model.safetensors``, ``predictions.csv`` and ``metrics.json``.

    With a split column the model is fitted on "train" and judged on "val" and "test"; otherwise every fold is held out
    in turn, and the model that is kept is then fitted on all slides. A rerun goes on from the last finished epoch.

    A slide that cannot be read is left out from then on, wherever that shows, and named with its reason under
    "excluded" of the metrics; the others go on; so is one whose resolution something contradicts, if ``strict``. A
    finished model that is not of this cohort and configuration any more is said to be so and why, and kept in a folder
    ``earlier-<digest>`` when the new one takes its place.

    Returns:
        The metrics, as written.

    Raises:
        UsageError: configuration, table or folder cannot be used, no slide of some class is left to train on, or
            training diverges.
    """
    find_device(config.training.device)  # said before anything is read
    told = config.cohort
    columns = {"slide": told.slide_column, "patient": told.patient_column, "site": told.site_column}
    cohort = read_training_table(
        told.table,
        label=told.label,
        root=told.slides,
        columns={role: name for role, name in columns.items() if name is not None},
        positive=told.positive,
        folds=config.training.folds,
    )
    check_folds(cohort.slides, folds=config.training.folds, by=config.training.folds_by)
    spec = model_spec(config, cohort.classes)
    prediction_columns(spec.classes)  # names that collide would be told at the end only
    try:
        untrained = build_model(spec, encoder_weights=config.encoder.weights)
        encoder: Any = untrained.backbone if isinstance(untrained, OnFrozenEncoder) else untrained.encoder
        encoder(torch.zeros(1, spec.patch_px, spec.patch_px, 3, dtype=torch.uint8))
    except (ValueError, ImportError) as exc:
        raise UsageError(f"encoder: {exc}") from exc
    except (RuntimeError, AssertionError) as exc:  # networks of a fixed input size
        raise UsageError(
            f"encoder: {spec.encoder!r} cannot take patches of view.patch_px={spec.patch_px}: {exc}"
        ) from exc
    if isinstance(untrained, OnFrozenEncoder):
        for doubt in untrained.doubts:
            say(f"warning: {doubt}")
    prepare_output(out, names=TRAINING)
    say(cohort.reading)
    kept = config.reading.cache
    cache = None if kept is None else chunk_cache(kept, round(config.reading.cache_gb * 1e9))
    looks = Looks(untrained, cache, say, strict=strict, prior=config.attention.prior)
    looks.first(cohort.slides)
    jobs = plan_jobs(cohort.slides, config, out)
    twins = [refuse_twins({"train": job.train, **job.held_out}, looks.fingerprints) for job in jobs]
    for warning in dict.fromkeys(one for found in twins for one in found):
        say(f"warning: {warning}")
    for job in jobs:
        _refuse_lost_class(job, spec, looks)
    rows: list[dict[str, Any]] = []
    models = []
    for job in jobs:
        fitted = _fit(job, spec, config, looks, say)
        models.append(fitted.model)
        own: list[dict[str, Any]] = []
        for part, slides in job.held_out.items():
            found = (predicted(fitted.model, slide, looks, seed=config.training.seed) for slide in slides)
            own += [{"part": part, **row} for row in found if row is not None]
        rows += own
        if job is not jobs[-1] and own:  # of a fold; what is said of the last one says all
            _stamp(job, fitted, judge_quality({"cross-validation": scored(own, spec.classes)}, fitted.losses))
    rows += out_of_bag_rows(jobs[-1].train, fitted.out_of_bag, spec.classes)
    metrics: dict[str, Any] = {
        "classes": list(spec.classes),
        "slides": {"in_table": len(cohort.slides), "excluded": len(looks.excluded)},
        "excluded": looks.excluded,
    }
    parts = [*(part for job in jobs for part in job.held_out), *([OUT_OF_BAG] if fitted.out_of_bag else [])]
    for part in dict.fromkeys(parts):
        members = [row for row in rows if row["part"] == part]
        if not members:
            say(f"{part}: none of its slides could be predicted, see the lines above")
            continue
        metrics[part] = scored(members, spec.classes)
        for line in in_lines(part, members, metrics[part]):
            say(line)
    quality = judge_quality(metrics, fitted.losses)
    _stamp(jobs[-1], fitted, quality)
    metrics |= {"learned": quality.learned, "reason": quality.reason}
    write_table(out / "predictions.csv", rows)
    write_json(out / "metrics.json", metrics)
    if config.training.compare:
        comparison = Comparison(
            looks=looks,
            samples=config.sampling.samples,
            settings=_settings(config, spec),
            device=config.training.device,
            weights=config.encoder.weights,
            keep=lambda model: _keeping(model, config),
            say=say,
        )
        comparison(jobs, models, out)
    learnt_from = [slide for slide in jobs[-1].train if slide.slide_id not in looks.excluded]
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
        say(f"{len(looks.excluded)} of {len(cohort.slides)} slides were left out; {out / 'metrics.json'} says why")
    return metrics


def _refuse_lost_class(job: Job, spec: ModelSpec, looks: Looks) -> None:
    """A model needs a slide of every class to learn from."""
    usable = {slide.label for slide in job.train if slide.slide_id not in looks.excluded}
    for label in spec.classes:
        if label not in usable:
            lost = [slide.slide_id for slide in job.train if slide.label == label]
            if not lost:
                raise UsageError(
                    f"{job.name} has no slide labelled {label!r} to train on: add some, or move some to it"
                )
            raise UsageError(
                f"{job.name} has no slide labelled {label!r} left to train on, all {len(lost)} are left out: restore "
                f"some or add others; {lost[0]}: {looks.excluded[lost[0]]}"
            )


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A model after its fit: what its members say of slides that they had not seen (probabilities of the classes by
    the slide's name), and where its loss ended."""

    model: SlideModel
    out_of_bag: dict[str, list[float]]
    losses: Losses | None


def _stamp(job: Job, fitted: _Fitted, quality: Quality) -> None:
    """Write into a checkpoint how good its model was found to be."""
    if fitted.model.quality != quality:
        fitted.model.quality = quality
        save_model(fitted.model, job.model)


def _fit(job: Job, spec: ModelSpec, config: Config, looks: Looks, say: Say) -> _Fitted:
    """Fit one model, or load it where the same one was fitted before."""
    job.folder.mkdir(parents=True, exist_ok=True)
    chosen = _calibration_slides(job, config, looks)
    settings = _settings(config, spec)
    val = tuple(sorted(job.held_out.get("val", ()), key=lambda slide: slide.slide_id))
    chooses = "val" if config.training.keep == "best" or config.training.patience else None
    samples = config.sampling.train_samples or spec.samples
    made = made_of(
        {"train": job.train, **job.held_out},
        calibrates={slide.slide_id for slide in chosen},
        fingerprints={name: print_ for name, print_ in looks.fingerprints.items() if name not in looks.excluded},
        spec=spec,
        settings={**settings, "train_samples": samples, **_prior_of(job, config), **_encoder_of(spec, config)},
        weights=config.encoder.weights,
        chooses=chooses,
    )
    earlier = read_json(job.folder / "training.json") or {}
    if job.model.exists():
        changes = differences(earlier.get("made_of"), made) or _readable_again(job, earlier, looks)
        if not changes:
            say(f"{job.model} is up to date")
            for slide in job.train + chosen + val:
                if slide.slide_id in earlier["left_out"]:
                    looks.leave_out(slide, earlier["left_out"][slide.slide_id])
            model = _keeping(load_model(job.model, encoder_weights=config.encoder.weights), config)
            losses = earlier.get("losses")
            return _Fitted(model, earlier.get("out_of_bag", {}), Losses(**losses) if losses else None)
        place = aside(job)
        say(f"{job.model} is of another training: {'; '.join(changes)}; it moves to {place} when the new one is there")
    begun, key = begin(job, made)
    lost = {i: looks.excluded[s.slide_id] for i, s in enumerate(job.train) if s.slide_id in looks.excluded}
    left_out: dict[str, str] = {}

    def leave_out(slide: CohortSlide, reason: str) -> None:
        left_out[slide.slide_id] = reason
        looks.leave_out(slide, reason)

    def lose(index: int, reason: str) -> None:
        leave_out(job.train[index], reason)
        _refuse_lost_class(job, spec, looks)

    torch.manual_seed(config.training.seed)
    model = _keeping(build_model(spec, encoder_weights=config.encoder.weights), config)
    started = time.perf_counter()
    from pipeline.train.fit import fit  # Lightning takes seconds to import
    from pipeline.train.steps import DivergedError

    checkpoint = begun.with_suffix(".ckpt")
    # the curve of a model that stands here stays beside it until it is put aside
    live = begun.with_suffix(".csv") if job.model.exists() else job.folder / "curve.csv"
    labels = [spec.classes.index(str(slide.label)) for slide in job.train]
    patients = [slide.patient or slide.slide_id for slide in job.train]
    bags = draw_bags(patients, labels, spec.members, seed=config.training.seed)
    held_out = TrainingSlides(
        len(val),
        lambda index: looks(val[index]).view,
        lambda index, reason: leave_out(val[index], reason),
        {i: looks.excluded[s.slide_id] for i, s in enumerate(val) if s.slide_id in looks.excluded},
    )
    judges = len(held_out.lost) < held_out.count
    if config.training.patience and not judges:
        say("warning: training.patience needs slides of split val to go by: it trains all epochs")
    try:
        curve = fit(
            model,
            lambda index: looks(job.train[index]).view,
            labels,
            checkpoint=checkpoint,
            samples=samples,
            say=say,
            bags=bags,
            leave_out=lose,
            lost=lost,
            names=[slide.slide_id for slide in job.train],
            validation=(held_out, [spec.classes.index(str(slide.label)) for slide in val]) if judges else None,
            curve=live,
            device=config.training.device,
            **settings,
        )
    except DivergedError:
        write_json(begun, {"key": key, "made_of": made, "diverged": True})
        raise
    model.eval()
    out_of_bag: dict[str, list[float]] = {}
    spread = None
    if isinstance(model, OnFrozenEncoder):
        gone = {i: looks.excluded[s.slide_id] for i, s in enumerate(job.train) if s.slide_id in looks.excluded}
        within = TrainingSlides(len(labels), lambda index: looks(job.train[index]).view, lose, gone)
        within.phase = "the judging of the members"
        judged = settle(model, within, labels, patients, bags, samples=samples, seed=config.training.seed)
        names = [job.train[i].slide_id for i in judged.slides]
        out_of_bag = dict(zip(names, judged.probabilities.tolist(), strict=True))
        spread = judged.spread
        rows = out_of_bag_rows(job.train, out_of_bag, spec.classes)
        if rows:
            say(f"{job.name}, out of bag: {in_words(scored(rows, spec.classes))}")
        say(f"{job.name}: its {spec.members} members differ by {spread:.2f} in log-odds, mean over slides")
    fitted = [slide.slide_id for i, slide in enumerate(job.train) if i not in lost]
    model.trained_on = frozenset(looks.fingerprints[name] for name in fitted)
    model.appearance = cohort_appearance([looks.appearances[name] for name in fitted])
    if not model.appearance.known:
        say(
            f"{len(fitted)} slides to train on are too few to tell later whether another looks like them; "
            f"that takes {FEWEST} of one field"
        )
    if chosen:
        # of those that were chosen at first, so that a rerun chooses the same
        views = [lambda slide=slide: looks(slide).view for slide in chosen]
        model.calibration = calibrate(
            model, views, seed=config.training.seed, say=say, leave_out=lambda i, reason: leave_out(chosen[i], reason)
        )
    if job.model.exists():
        keep_aside(job)
    save_model(model, job.model)
    curve.write(job.folder / "curve.csv")
    ended = curve.losses
    losses = None if ended is None or math.isnan(ended[0]) else Losses(*ended, curve.base)
    done = {
        "key": key,
        "kept_epoch": curve.kept,
        "losses": losses and asdict(losses),
        "out_of_bag": out_of_bag,
        "spread_of_members": spread,
        "seconds": time.perf_counter() - started,
        "left_out": left_out,
        "config": config.model_dump(mode="json"),
        "encoder": told_of_encoder(model),
        "made_of": made,
    }
    write_json(job.folder / "training.json", done)
    checkpoint.unlink(missing_ok=True)
    begun.unlink(missing_ok=True)
    begun.with_suffix(".csv").unlink(missing_ok=True)
    count = sum(slide.slide_id not in looks.excluded for slide in job.train)
    say(f"fitted on {count} slides in {done['seconds']:.0f} s: {job.model}")
    return _Fitted(model, out_of_bag, losses)


def _readable_again(job: Job, earlier: dict[str, Any], looks: Looks) -> list[str]:
    """Whether slides that were left out can be read by now, as a difference in words."""
    by_name = {slide.slide_id: slide for part in (job.train, *job.held_out.values()) for slide in part}
    lost = [by_name[name] for name in earlier.get("left_out", {}) if name in by_name and name not in looks.excluded]
    names = [slide.slide_id for slide in lost if looks.reads_whole(slide)]
    return [f"{len(names)} of the slides that were left out can be read now ({', '.join(names)})"] if names else []


def _encoder_of(spec: ModelSpec, config: Config) -> dict[str, Any]:
    """What a frozen encoder is, whatever its name: its weights may come with another release."""
    if not spec.frozen:
        return {}
    return {"encoder": backbone_of(spec.encoder, config.encoder.weights, spec.precision).card.identity}


def _prior_of(job: Job, config: Config) -> dict[str, Any]:
    """The maps that training draws by, as a setting: by their content."""
    if config.attention.prior is None:
        return {}
    digest = hashlib.sha256()
    for slide in job.train:
        try:
            path = find_map(config.attention.prior, slide.slide_id)
            digest.update(slide.slide_id.encode() + hashlib.sha256(path.read_bytes()).digest())
        except (MapError, OSError):
            continue  # the slide was left out for it
    return {"prior": digest.hexdigest()}


def _settings(config: Config, spec: ModelSpec) -> dict[str, Any]:
    """What `fit` is told of the configuration, and what a model depends on of it."""
    beside = {"folds", "folds_by", "calibration_slides", "device", "members", "compare"}
    settings = config.training.model_dump(exclude=beside) | config.augmentation.model_dump()
    if settings["learning_rate"] is None:
        settings["learning_rate"] = default_rate(spec)
    return settings


def _calibration_slides(job: Job, config: Config, looks: Looks) -> tuple[CohortSlide, ...]:
    """The slides that are read whole for the intervals: those that training did not see first."""
    if config.model.kind == "exhaustive":
        return ()  # its intervals have no width
    val = sorted(job.held_out.get("val", ()), key=lambda slide: slide.slide_id)
    usable = [slide for slide in (*val, *job.train) if slide.slide_id not in looks.excluded]
    return tuple(usable[: config.training.calibration_slides])
