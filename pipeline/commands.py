"""What users call, on the command line and by `import saccade`: paths and plain values in, frozen values out.

Everything heavy is imported when it is needed, after what can be answered without it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError, computing
from pipeline.garbage import uncollected
from stages.amounts import amount, apart, as_given, size
from stages.disk import refusal
from stages.place import Url, place

if TYPE_CHECKING:
    from pipeline.bench.bench import BenchProgress, BenchSummary
    from pipeline.cache import CacheProgress, CacheSummary, Ngff
    from pipeline.check.values import CheckSummary
    from pipeline.cohort.table import Cohort
    from pipeline.conformalize import ConformalSummary
    from pipeline.dry_run.outcome import DryRun
    from pipeline.model.slide_model import SlideModel
    from pipeline.predict import SlidePrediction
    from pipeline.run.books import RunSummary
    from pipeline.run.run import Progress
    from pipeline.run.slide import RunSettings
    from stages.prior import Prior
    from stages.pyramid.plan import Wish
    from stages.slide.protocol import Slide

AnyPath = str | PathLike[str]

MOST_WORKERS = max(64, 8 * (os.cpu_count() or 1))
"""More than that is a slip: each is a process with torch in it, some hundred MB."""


def open_slide(path: AnyPath, *, mpp: float | None = None) -> Slide:
    """Open a slide: a whole-slide file, or a pyramid that `cache` made of one. A notebook shows its thumbnail.

    Of its pixels only what tells its levels apart is read; the slide pickles by its path.

    Args:
        path: whatever OpenSlide opens (SVS, NDPI, MRXS, SCN, BIF, VMS, DICOM, generic TIFF ...), or an `.ome.zarr`
            folder of ours.
        mpp: µm per level-0 pixel, where the file does not say or is wrong.

    Raises:
        SlideError: missing, not a slide, damaged, or an OME-Zarr of another program.

    Examples:
        >>> import saccade
        >>> slide = saccade.open_slide("slides/even.tif")
        >>> slide
        <OpenSlideSlide 'even.tif': generic-tiff, 2048 x 1536 px, 0.5 x 0.5 µm/px, 3 levels>
        >>> slide.facts.mpp.x, [level.width for level in slide.facts.levels]
        (0.5, [2048, 1024, 512])
    """
    from stages.pyramid.open import open_pyramid
    from stages.slide.facts import SlideError

    try:
        return open_pyramid(path, mpp=mpp)
    except SlideError as exc:
        raise SlideError(f"{os.fspath(path)}: {exc}") from exc


@computing()
def load_model(path: AnyPath, *, device: str = "auto", encoder_weights: AnyPath | None = None) -> SlideModel:
    """Load a model that `train` wrote: a torch module in evaluation mode. Nothing in the file is ever executed.

    Args:
        path: the checkpoint, `model.safetensors`, or the folder that `train` wrote it to.
        device: "auto" ("cuda" where there is a GPU for it, else "cpu"), "cpu", "cuda", "cuda:N" or "mps".
        encoder_weights: of its frozen encoder, where they are not those that the encoder's name stands for.

    Raises:
        UsageError: missing, damaged, not one of ours; or no such device.

    Examples:
        >>> import saccade
        >>> model = saccade.load_model("model.safetensors")
        >>> model.spec.classes, model.spec.patch_mpp, model.spec.samples
        (('normal', 'tumour'), 0.5, 16)
    """
    from pipeline.model import checkpoint
    from pipeline.model.build import keep_features

    weights = None if encoder_weights is None else Path(encoder_weights)
    return keep_features(checkpoint.load_model(Path(path), device=device, encoder_weights=weights))


@computing()
def predict(
    slide: Slide | AnyPath,
    model: SlideModel | AnyPath,
    *,
    samples: int | None = None,
    tolerance: float | None = None,
    decide: float | None = None,
    risk: float | None = None,
    positive: str | None = None,
    scheme: str | None = None,
    seed: int = 0,
    mpp: float | None = None,
    prior: AnyPath | None = None,
    prior_mpp: float | None = None,
    prior_channel: int | None = None,
    refer: float | None = None,
    by_class: bool = False,
) -> SlidePrediction:
    """Predict one slide, with an interval for every class; what `run` finds for it.

    Args:
        slide: an opened slide, or its path.
        model: a loaded model, or its path.
        samples: patches to read, with a tolerance or a decision at most; default: the model's own number.
        tolerance: read on until no interval reaches farther than this from its probability, such as 0.02.
        decide: read on only until it is settled whether the probability of the ``positive`` class, had every patch been
            read, lies above or below this, such as 0.5; where ``samples`` end first, it is undecided.
        risk: with ``decide``, how often a slide may be decided for the wrong side; default: 0.01.
        positive: with ``decide``, the class; default: of two classes the second.
        scheme: how the patches are drawn, "systematic", "gumbel" or "iid"; default: the model's.
        seed: of the draws; the same seed reads the same patches of the same slide.
        mpp: µm per level-0 pixel of a slide given by its path.
        prior: see `run`; also one map, of this slide.
        prior_mpp: see `run`.
        prior_channel: see `run`.
        refer: a stated error, such as 0.1, at which the slide's class is called or the slide referred, of a model that
            `conformalize` calibrated: ``label_set`` of the prediction.
        by_class: state it of the slides of each class, not of all.

    Raises:
        SlideError: the slide cannot be read, or its resolution is unknown or too coarse for the model.
        UsageError: the model cannot be used, or the arguments do not fit each other.
        ValueError: there is no tissue on the slide, or so few samples tell no interval.

    Examples:
        >>> import saccade
        >>> model = saccade.load_model("model.safetensors")
        >>> prediction = saccade.predict("slides/even.tif", model, samples=24)
        >>> sorted(prediction.probabilities), prediction.patches_read
        (['normal', 'tumour'], 24)
        >>> saccade.predict("slides/even.tif", model, samples=24).probabilities == prediction.probabilities
        True
    """
    _check_reading(samples, tolerance, decide, risk, positive)
    _check_refer(refer, by_class)
    from pipeline.cohort.files import folder_name, slide_stem
    from pipeline.predict import check_budget, check_prior, decision_of, predict_slide

    if isinstance(slide, str | PathLike):
        slide = open_slide(slide, mpp=mpp)
    elif mpp is not None:
        raise UsageError("mpp is for a slide given by its path: give it to open_slide")
    if isinstance(model, str | PathLike):
        model = load_model(model)
    elif model.training:
        raise UsageError("the model is in training mode, where it predicts differently: call model.eval() first")
    check_budget(model.spec, samples=samples, scheme=scheme)
    given = _prior(prior, prior_mpp, prior_channel)
    if given is not None:
        check_prior(model.spec, given)
        given = given.of(folder_name(slide_stem(slide.facts.path)))
    chosen = decision_of(model.spec, decide, risk, positive, samples=samples)
    how: dict[str, Any] = {"samples": samples, "tolerance": tolerance, "decide": chosen, "scheme": scheme}
    rule = None
    if refer is not None:
        from pipeline.refer.referral import referral

        reads_on = tolerance is not None or chosen is not None
        rule = referral(
            model, refer, by_class=by_class, samples=samples, reads_on=reads_on, scheme=scheme, prior=given is not None
        )
    return predict_slide(slide, model, **how, seed=seed, prior=given, refer=rule)


@computing()
def run(
    target: Cohort | AnyPath,
    model: AnyPath,
    *,
    out: AnyPath,
    samples: int | None = None,
    tolerance: float | None = None,
    decide: float | None = None,
    risk: float | None = None,
    positive: str | None = None,
    scheme: str | None = None,
    mpp: float | None = None,
    strict: bool = False,
    seed: int = 0,
    prior: AnyPath | None = None,
    prior_mpp: float | None = None,
    prior_channel: int | None = None,
    refer: float | None = None,
    by_class: bool = False,
    device: str = "auto",
    workers: int | None = None,
    limit: float | None = None,
    memory: int | str | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    encoder_weights: AnyPath | None = None,
    features: AnyPath | None = None,
    verify: bool = False,
    progress: Progress | None = None,
    within: Callable[[str], None] | None = None,
    command: Sequence[str] = ("saccade.run",),
) -> RunSummary:
    """Predict every slide of a cohort, with intervals, overlays and a report; a rerun does only what is missing.

    A slide that cannot be predicted fails by itself: its row says why, and the others go on. It has no result, so that
    a rerun tries it again, whatever the reason was. What happened is also in ``run.log``.

    Args:
        target: a slide, a folder (searched for slides) or a cohort table, by its path; or what `read_cohort` gave.
        model: the checkpoint's path, or its folder's.
        out: the folder for predictions.csv, report.html and what belongs to each slide; made where it is missing.
        samples: see `predict`.
        tolerance: see `predict`.
        decide: see `predict`.
        risk: see `predict`.
        positive: see `predict`.
        scheme: see `predict`.
        mpp: µm per level-0 pixel of every slide for which the cohort table gives none.
        strict: refuse slides whose objective or TIFF tags contradict their resolution, instead of a warning.
        seed: see `predict`.
        prior: folder of maps `<slide>.npy`, `.png` or `.tif` of where to look, one channel over the whole slide, or an
            `.onnx` segmentation network that makes them of the thumbnail: half of each draw goes by them; the estimate
            stays unbiased whatever they show.
        prior_mpp: µm/px of the thumbnail that such a network is given; default: what `NETWORK.onnx.json` says, else the
            model's own for its attention.
        prior_channel: its channel that shows where to look, from 0; default: its only one.
        refer: see `predict`; what is stated, and how often it held, is ``refer`` of the summary.
        by_class: see `predict`.
        device: see `load_model`.
        workers: worker processes; 0 works in this one; default: as many as suit the machine, none for a single slide.
        limit: seconds that one slide may take on a worker before it is ended and fails; default: 20 times what is
            typical of the others, 10 minutes at least.
        memory: bytes, or a size such as "4GB", that each process may take: a slide that needs more is refused; default:
            its share of 80 % of the machine's.
        scheduler: address of a dask scheduler, whose workers are used instead.
        retry_failed: do only slides that failed when they were last tried into ``out``; others stay as they are.
        fail_fast: begin no more slides once one has failed; those that are being worked on are finished.
        encoder_weights: see `load_model`.
        features: folder that keeps what a frozen encoder makes of patches; default: $SACCADE_CACHE, else the user's
            cache folder.
        verify: read every byte of every slide: an earlier result stands only where its digest is the recorded one.
        progress: called with (slides finished, slides in all, a line about the last one).
        within: called with a line about a slide that is being worked on, by any thread.
        command: what run.json and run.log record as the command.

    Raises:
        UsageError: nothing was started, because the target, the model, the folder or the scheduler cannot be used.

    Examples:
        >>> import saccade
        >>> summary = saccade.run("slides", "model.safetensors", out="results", samples=24)
        >>> summary
        RunSummary(total=3, ok=3, failed=0, reused=0)
        >>> [(row["slide_id"], row["status"]) for row in summary.rows]
        [('even', 'ok'), ('odd', 'ok'), ('plain', 'ok')]
        >>> saccade.run("slides", "model.safetensors", out="results", samples=24).reused
        3
    """
    with uncollected():  # most of a rerun over finished slides are imports
        cohort, settings = _to_run(
            target,
            model,
            workers,
            samples=samples,
            tolerance=tolerance,
            decide=decide,
            risk=risk,
            positive=positive,
            scheme=scheme,
            mpp=mpp,
            strict=strict,
            seed=seed,
            prior=prior,
            prior_mpp=prior_mpp,
            prior_channel=prior_channel,
            refer=refer,
            by_class=by_class,
            device=device,
            encoder_weights=encoder_weights,
            features=features,
            verify=verify,
            memory=memory,
        )
        from pipeline.run.run import run_cohort

    return run_cohort(
        cohort,
        Path(out),
        settings,
        workers=workers,
        limit=limit,
        scheduler=scheduler,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        progress=progress,
        within=within,
        command=command,
    )


@computing()
def dry_run(
    target: Cohort | AnyPath,
    model: AnyPath,
    *,
    out: AnyPath,
    workers: int | None = None,
    limit: float | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> DryRun:
    """What `run` would do with these arguments, and about what that takes; nothing is written.

    Raises:
        UsageError: `run` would not start.
    """
    cohort, chosen = _to_run(target, model, workers, **settings)
    from pipeline.dry_run.dry_run import dry_run_cohort

    how: dict[str, Any] = {"workers": workers, "limit": limit, "scheduler": scheduler, "retry_failed": retry_failed}
    return dry_run_cohort(cohort, Path(out), chosen, **how, progress=progress)


def _to_run(
    target: Cohort | AnyPath,
    model: AnyPath,
    workers: int | None,
    *,
    prior: AnyPath | None = None,
    prior_mpp: float | None = None,
    prior_channel: int | None = None,
    encoder_weights: AnyPath | None = None,
    features: AnyPath | None = None,
    memory: int | str | None = None,
    **settings: Any,
) -> tuple[Cohort, RunSettings]:
    """The slides and how they are predicted, from what users give."""
    _check_reading(*(settings.get(name) for name in ("samples", "tolerance", "decide", "risk", "positive")))
    _check_refer(settings.get("refer"), settings.get("by_class", False))
    if workers is not None and not 0 <= workers <= MOST_WORKERS:
        raise UsageError(f"workers must be from 0 to {MOST_WORKERS}, found {workers}")
    cohort = read_cohort(target) if isinstance(target, str | PathLike) else target
    from pipeline.run.slide import RunSettings

    return cohort, RunSettings(
        model=Path(model),
        encoder_weights=None if encoder_weights is None else Path(encoder_weights),
        features=None if features is None else Path(features),
        prior=_prior(prior, prior_mpp, prior_channel),
        memory=_memory(memory),
        **settings,
    )


def _prior(place: AnyPath | None, mpp: float | None, channel: int | None) -> Prior | None:
    """What says where to look, as it was given."""
    for name, value, fits in (
        ("prior_mpp", mpp, mpp is None or 0 < mpp < math.inf),
        ("prior_channel", channel, channel is None or channel >= 0),
    ):
        if value is not None and place is None:
            raise UsageError(f"{name} is for an .onnx network as prior, and no prior is given: leave it out")
        if not fits:
            raise UsageError(f"{name} must be {'more than 0' if value is mpp else '0 or more'}, found {value}")
    if place is None:
        return None
    from stages.prior import Prior

    return Prior(Path(place), mpp, channel)


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a training came to; a notebook shows its metrics.

    Attributes:
        model: the checkpoint.
        excluded: why slides were left out, by their names.
        metrics: of each held-out part ("val" and "test", or "cross-validation"; of a model on a frozen encoder
            "out-of-bag", too), as metrics.json has them.
        learned: whether the model tells its classes apart better than chance: "yes", "no" or "unclear".
        reason: why that is said.
    """

    model: Path
    excluded: dict[str, str]
    metrics: dict[str, dict[str, Any]] = field(repr=False)
    learned: str = field(repr=False)
    reason: str = field(repr=False)

    def _repr_html_(self) -> str:
        from stages.html import table

        def cells(value: Any) -> str:
            if not isinstance(value, dict):
                return f"{value:.3f}" if isinstance(value, float) else str(value)
            if set(value) != {"value", "low", "high"}:  # slides of each class, whatever it is called
                return ", ".join(f"{count} {apart(name)}" for name, count in value.items())
            if value.get("low") is None:
                return str(value.get("value"))
            return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"

        rows = [
            (part, name, cells(value))
            for part, told in self.metrics.items()
            for name, value in told.items()
            if name != "sites"
        ]
        rows += [("learned", self.learned, self.reason)]
        rows += [("left out", slide, reason) for slide, reason in self.excluded.items()]
        return table(rows, header=("slides", "metric", "value (95 % interval)"), caption=str(self.model))


@computing()
def train(
    config: AnyPath,
    *,
    out: AnyPath,
    overrides: Sequence[str] = (),
    strict: bool = False,
    verify: bool = False,
    say: Callable[[str], None] | None = None,
    command: Sequence[str] = ("saccade.train",),
) -> TrainSummary:
    """Train on a cohort of slides with slide-level labels, and write `model.safetensors`, splits and metrics.

    A rerun goes on where an earlier one stopped.

    Args:
        config: the configuration (YAML); configs/default.yaml explains every field.
        out: the folder for what is written; made where it is missing.
        overrides: values of the configuration in place of the file's, such as "sampling.samples=64".
        strict: leave out slides whose objective or TIFF tags contradict their resolution, instead of a warning.
        verify: read every byte of every slide: an earlier model stands only where the digests are those it recorded.
        say: called with each line about how far it is, such as `print`; train.log has them, too.
        command: what train.log records as the command.

    Raises:
        UsageError: the configuration, the cohort table or the folder cannot be used.

    Examples:
        >>> import saccade
        >>> summary = saccade.train("config.yaml", out="training", overrides=["training.epochs=1"])
        >>> summary.metrics["test"]["slides"], summary.excluded
        (2, {})
        >>> saccade.load_model(summary.model).spec.classes
        ('a', 'b')
    """
    from pipeline.config import load_config

    loaded = load_config(Path(config), overrides)
    from pipeline.train.train import train_cohort

    quiet = say or (lambda line: None)
    metrics = train_cohort(loaded, Path(out), say=quiet, strict=strict, verify=verify, command=command)
    parts = {
        name: told
        for name, told in metrics.items()
        if name not in ("classes", "slides", "excluded", "learned", "reason")
    }
    told = (metrics["excluded"], parts, metrics["learned"], metrics["reason"])
    return TrainSummary(Path(out) / "model.safetensors", *told)


@computing()
def conformalize(
    model: AnyPath,
    target: Cohort | AnyPath,
    *,
    out: AnyPath,
    label: str = "label",
    split: str | None = None,
    samples: int | None = None,
    strict: bool = False,
    seed: int = 0,
    device: str = "auto",
    encoder_weights: AnyPath | None = None,
    features: AnyPath | None = None,
    say: Callable[[str], None] | None = None,
) -> ConformalSummary:
    """Calibrate a model's calls on labelled slides of patients that it was not trained on, and write it with them.

    The model that is written predicts as before; with ``refer``, `predict` and `run` also call or refer. A training
    with slides of split val has done this by itself.

    Args:
        model: the checkpoint's path, or its folder's.
        target: a cohort table with labels, by its path; or what `read_cohort` gave.
        out: the new checkpoint (`.safetensors`), or a folder for it.
        label: the table's column of labels.
        split: only slides of this part of the table, such as "val".
        samples: a number of patches that runs will ask for, beside those that are calibrated anyway.
        strict: leave out slides whose objective or TIFF tags contradict their resolution, instead of a warning.
        seed: of the draws.
        device: see `load_model`.
        encoder_weights: see `load_model`.
        features: see `run`.
        say: called with each line about how far it is, such as `print`.

    Raises:
        UsageError: the model was trained on one of the slides, a class has none, or the target, the model or the place
            cannot be used.

    Examples:
        >>> import saccade
        >>> model = saccade.train("config.yaml", out="training", overrides=["training.epochs=1"]).model
        >>> summary = saccade.conformalize(model, "cohort.csv", out="calibrated", split="test")
        >>> summary
        ConformalSummary(slides=2, patients=2, patients_of={'a': 1, 'b': 1}, least_error=0.333)
        >>> prediction = saccade.predict("s4.tif", summary.model, refer=0.4)
        >>> prediction.label_set.call in ("a", "b", "refer")
        True
    """
    _check_reading(samples, None, None, None, None)
    cohort = read_cohort(target, label=label) if isinstance(target, str | PathLike) else target
    from pipeline.conformalize import conformalize_model

    return conformalize_model(
        Path(model),
        cohort,
        Path(out),
        split=split,
        samples=samples,
        strict=strict,
        seed=seed,
        device=device,
        encoder_weights=None if encoder_weights is None else Path(encoder_weights),
        features=None if features is None else Path(features),
        say=say or (lambda line: None),
    )


@computing()
def bench(
    model: AnyPath,
    target: Cohort | AnyPath,
    *,
    out: AnyPath,
    samples: Sequence[int] | None = None,
    draws: int = 20,
    slides: int | None = None,
    tolerances: Sequence[float] = (0.1, 0.05, 0.02),
    label: str = "label",
    split: str | None = None,
    seed: int = 0,
    device: str = "auto",
    encoder_weights: AnyPath | None = None,
    features: AnyPath | None = None,
    progress: BenchProgress | None = None,
    within: Callable[[str], None] | None = None,
) -> BenchSummary:
    """Find how many patches a cohort needs: draw its unseen slides in several ways, again and again, and tell how near
    each comes to reading everything, and what it costs.

    Every tissue patch of every slide is read and encoded once, which takes as long as reading everything does; with a
    frozen encoder its features are kept, so that it takes that long only once.

    Args:
        model: the checkpoint's path, or its folder's.
        target: a cohort table with labels, by its path, or what `read_cohort` gave; slides that the model was trained
            on, or that the table says are to train or to choose with, are left out.
        out: the folder for bench.csv, bench.json and bench.png; made where it is missing.
        samples: patches a slide to try; default: powers of two from 4 to 512, and the model's own number.
        draws: of each slide and number of patches.
        slides: at most so many, chosen at random, of every class alike; default: all.
        tolerances: those of `predict` to try.
        label: the table's column of labels.
        split: only slides of this split of the table, such as "val"; default: those of test, or of no split.
        seed: of the draws, and of the choice of slides.
        device: see `load_model`.
        encoder_weights: see `load_model`.
        features: see `run`.
        progress: called with (slides finished, slides in all, a line about the last one).
        within: called with a line about how far the slide is that is being read.

    Raises:
        UsageError: nothing was started, because the model, the table or the folder cannot be used, or no slide is left
            to compare on.

    Examples:
        >>> import saccade
        >>> summary = saccade.bench("model.safetensors", "slides", out="bench", samples=[8, 32], draws=3)
        >>> [row["way"] for row in summary.rows][:3], summary.slides
        (['everything', 'attention', 'attention'], 3)
    """
    cohort = read_cohort(target, label=label) if isinstance(target, str | PathLike) else target
    from pipeline.bench.bench import bench_cohort

    return bench_cohort(
        cohort,
        Path(model),
        Path(out),
        samples=samples,
        draws=draws,
        slides=slides,
        split=split,
        tolerances=tolerances,
        seed=seed,
        device=device,
        encoder_weights=None if encoder_weights is None else Path(encoder_weights),
        features=None if features is None else Path(features),
        progress=progress,
        within=within,
    )


@dataclass(frozen=True, slots=True)
class DistilSummary:
    """What a distillation came to.

    Attributes:
        model: the checkpoint.
        excluded: why slides were left out, by their names.
        fidelity: how near it is to its teacher on held-out slides, a row for each number of patches; as fidelity.csv.
    """

    model: Path
    excluded: dict[str, str]
    fidelity: list[dict[str, Any]] = field(repr=False)


@computing()
def distil(
    config: AnyPath,
    *,
    out: AnyPath,
    overrides: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> DistilSummary:
    """Make of attention MIL on all tiles, and its bags, a model that reads a few and estimates the same prediction.

    Args:
        config: the configuration (YAML); configs/distil.yaml has its keys.
        out: the folder for what is written; made where it is missing.
        overrides: values of the configuration in place of the file's, such as "student.samples=64".
        say: called with each line about how far it is, such as `print`.

    Raises:
        UsageError: the configuration, the teacher, the bags, the cohort table or the folder cannot be used.
    """
    from pipeline.config import load_distil_config

    loaded = load_distil_config(Path(config), overrides)
    from pipeline.distil.distil import distil_cohort

    metrics = distil_cohort(loaded, Path(out), say=say or (lambda line: None))
    return DistilSummary(Path(out) / "model.safetensors", metrics["excluded"], metrics.get("fidelity", []))


def cache(
    target: Cohort | AnyPath,
    *,
    out: AnyPath,
    profile: Wish = "auto",
    everything: bool = False,
    ngff: Ngff = "0.5",
    verify: bool = False,
    strict: bool = False,
    workers: int | None = None,
    limit: float | None = None,
    memory: int | str | None = None,
    disk: int | str | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    progress: CacheProgress | None = None,
    command: Sequence[str] = ("saccade.cache",),
) -> CacheSummary:
    """Copy slides into chunked OME-Zarr pyramids, which everything here reads in their place.

    A pyramid is whole or not there. A slide that cannot be copied fails by itself, and the others go on; it is tried
    again whenever this is called again. What happened is also in ``cache.log``.

    Args:
        target: a slide, a folder (searched for slides) or a cohort table, by its path; or what `read_cohort` gave.
        out: the folder for the pyramids, one `<slide_id>.ome.zarr` each; made where it is missing.
        profile: "native" copies JPEG tiles as they are, "portable" keeps pixels losslessly, for any program; "auto" is
            native where a slide has nothing but JPEG tiles, and leaves a pyramid portable that is so already.
        everything: keep all of a portable pyramid; else its finest levels hold tissue only.
        ngff: "0.4" exports for QuPath and others; we read "0.5".
        verify: write nothing; read every chunk that is in the folder, and every byte of the slides.
        strict: see `run`.
        workers: see `run`.
        limit: see `run`; of a slide that tells how far it is, since it last did.
        memory: see `run`.
        disk: bytes, or a size such as "500GB", that the pyramids may take: one that may need more than is left of it is
            not begun; default: all that is free, but 5 % or 1 GB.
        retry_failed: see `run`.
        fail_fast: see `run`.
        progress: told of all that happens, see `pipeline.cache.CacheProgress`.
        command: what cache.log records as the command.

    Raises:
        UsageError: the target or the folder cannot be used, or the arguments contradict each other.

    Examples:
        >>> import saccade
        >>> saccade.cache("slides", out="pyramids")
        CacheSummary(total=3, errors={})
        >>> saccade.open_slide("pyramids/even.ome.zarr")
        <ZarrSlide 'even.ome.zarr': generic-tiff, 2048 x 1536 px, 0.5 x 0.5 µm/px, 3 levels>
        >>> saccade.cache("slides", out="pyramids", verify=True).failed
        0
    """
    cohort = read_cohort(target) if isinstance(target, str | PathLike) else target
    from pipeline.cache import CacheSettings, cache_cohort, verify_cohort

    settings = CacheSettings(profile, everything, ngff, strict, _memory(memory), _disk(disk))
    if verify:
        if retry_failed or fail_fast:
            raise UsageError("verifying looks at every pyramid and makes none: leave retry_failed and fail_fast out")
        return verify_cohort(cohort, place(out), settings, workers=workers, limit=limit, progress=progress)
    return cache_cohort(
        cohort,
        place(out),
        settings,
        workers=workers,
        limit=limit,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        progress=progress,
        command=command,
    )


def dry_cache(
    target: Cohort | AnyPath,
    *,
    out: AnyPath,
    profile: Wish = "auto",
    everything: bool = False,
    ngff: Ngff = "0.5",
    strict: bool = False,
    workers: int | None = None,
    limit: float | None = None,
    memory: int | str | None = None,
    disk: int | str | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> DryRun:
    """What `cache` would do with these arguments, and about what that takes; nothing is written.

    Raises:
        UsageError: `cache` would not start.
    """
    cohort = read_cohort(target) if isinstance(target, str | PathLike) else target
    from pipeline.cache import CacheSettings
    from pipeline.dry_run.dry_run import dry_cache_cohort

    how: dict[str, Any] = {"workers": workers, "limit": limit, "retry_failed": retry_failed, "progress": progress}
    folder = place(out)
    if isinstance(folder, Url):
        raise UsageError(f"a dry run looks at folders, and --out is {folder}: leave --dry-run out")
    return dry_cache_cohort(
        cohort, folder, CacheSettings(profile, everything, ngff, strict, _memory(memory), _disk(disk)), **how
    )


def check(
    target: AnyPath,
    *,
    model: AnyPath | None = None,
    label: str = "label",
    root: AnyPath | None = None,
    mpp: float | None = None,
    strict: bool = False,
    csv: AnyPath | None = None,
    template: AnyPath | None = None,
    workers: int | None = None,
    limit: float | None = None,
    progress: Progress | None = None,
) -> CheckSummary:
    """Look for what is wrong with slides and their table before hours of work: open and sample every one of them.

    Of each slide a few tiles of every level, the thumbnail and its tissue are read. What is wrong is a finding: an
    error where `run` or `train` would fail or be misled, else a warning.

    Args:
        target: a slide, a folder (searched for slides) or a cohort table, by its path.
        model: a checkpoint's path, or its folder's, whose scales slides are checked for and whose cost is estimated.
        label: see `read_cohort`.
        root: see `read_cohort`.
        mpp: see `run`.
        strict: a resolution that the objective or TIFF tags contradict is an error, instead of a warning.
        csv: a file for all of it, a row a slide.
        template: a file for a cohort table of all slides, with the columns to fill in.
        workers: see `run`.
        limit: see `run`.
        progress: called with (slides finished, slides in all, a line about the last one where something is wrong).

    Raises:
        UsageError: the target or the model cannot be used at all, or a file cannot be written.

    Examples:
        >>> import saccade
        >>> summary = saccade.check("slides", workers=0)
        >>> summary.counts, summary.failed
        ({'ok': 3, 'warning': 0, 'error': 0}, False)
    """
    from pipeline.check.check import check_cohort
    from pipeline.check.slide import CheckSettings
    from pipeline.check.tables import write_findings, write_template
    from pipeline.cohort.table import examine_target

    unsearched: list[str] = []
    folder = None if root is None else Path(root)
    cohort, faults = examine_target(place(target), label=label, root=folder, told=unsearched.append)
    summary = check_cohort(
        cohort,
        CheckSettings(mpp, strict),
        faults=faults,
        unsearched=tuple(unsearched),
        model=None if model is None else Path(model),
        workers=workers,
        limit=limit,
        progress=progress,
    )
    for path, write in ((csv, write_findings), (template, partial(write_template, cohort=cohort))):
        if path is not None:
            try:
                write(summary, path=Path(path))
            except OSError as exc:
                raise UsageError(f"cannot write {path}: {refusal(exc, Path(path), writing=True)}") from exc
    return summary


def read_cohort(target: AnyPath, *, label: str = "label", root: AnyPath | None = None) -> Cohort:
    """The slides that a target stands for: a slide, a folder (searched all the way down) or a cohort table (CSV).

    Args:
        target: its path. A table has the columns `slide` and, where there are any, `patient`, `label`, `mpp`, `split`,
            `fold`, `site`.
        label: the table's column of labels.
        root: folder that a table's relative paths start from; default: the table's own.

    Raises:
        UsageError: nothing there, no slides inside, a broken table, two slides with one name.

    Examples:
        >>> import saccade
        >>> cohort = saccade.read_cohort("cohort.csv")
        >>> cohort.classes, [(slide.slide_id, slide.label) for slide in cohort.slides[:2]]
        (('a', 'b'), [('s0', 'a'), ('s1', 'b')])
    """
    from pipeline.cohort.table import find_target

    return find_target(place(target), label=label, root=None if root is None else Path(root))


def _check_reading(
    samples: int | None, tolerance: float | None, decide: float | None, risk: float | None, positive: str | None
) -> None:
    if samples is not None and samples < 1:
        raise UsageError(f"samples must be at least 1, found {samples}")
    if tolerance is not None and not 0 < tolerance <= 1:
        raise UsageError(f"tolerance must lie above 0 and be at most 1, found {as_given(tolerance)}; such as 0.02")
    if decide is None:
        for name, value in (("risk", risk), ("positive", positive)):
            if value is not None:
                raise UsageError(
                    f"{name} says nothing without decide: leave it out, or give the threshold, such as 0.5"
                )
        return
    if tolerance is not None:
        raise UsageError("tolerance and decide each say when to stop reading: give one of them")
    if not 0 < decide < 1:
        raise UsageError(f"decide must lie between 0 and 1, found {as_given(decide)}; such as 0.5")
    if risk is not None and not 0 < risk < 0.5:
        raise UsageError(f"risk must lie between 0 and 0.5, found {as_given(risk)}; such as 0.01")


def _check_refer(refer: float | None, by_class: bool) -> None:
    if refer is None and by_class:
        raise UsageError("by_class says how an error is stated: give refer, too, such as 0.1")
    if refer is not None and not 0 < refer < 1:
        raise UsageError(f"refer must lie between 0 and 1, found {as_given(refer)}; such as 0.1")


def _bytes(value: int | str, name: str) -> int:
    """Bytes that were given as such or as a size."""
    try:
        return value if isinstance(value, int) else amount(value)
    except ValueError as exc:
        raise UsageError(f"{name}: {exc}") from exc


def _memory(value: int | str | None) -> int | None:
    """What a process may take: enough for itself."""
    if value is None:
        return None
    from stages.budget import OWN_BYTES

    found = _bytes(value, "memory")
    if found < OWN_BYTES:
        raise UsageError(
            f"--memory {size(found)} is less than a process takes whatever the slide: give {size(OWN_BYTES)} or more"
        )
    return found


def _disk(value: int | str | None) -> int | None:
    """What pyramids may take."""
    return None if value is None else _bytes(value, "disk")
