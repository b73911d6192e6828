"""Train the model on a cohort, slide labels only, end to end; cross-validate; keep all that resuming needs."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.cohort.metrics import evaluate, in_words
from pipeline.cohort.splits import check_folds, refuse_twins, split_cohort
from pipeline.cohort.table import CohortSlide, read_training_table
from pipeline.config import Config
from pipeline.device import find_device
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.look import Look, look
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import ModelSpec
from pipeline.output.documents import read_json, write_json
from pipeline.output.folder import TRAINING, prepare_output
from pipeline.output.table import write_table
from pipeline.train.calibrate import calibrate
from stages.pyramid.chunk_cache import ChunkCache, chunk_cache

Say = Callable[[str], None]
LOOKS_BYTES = 2**31
"""Thumbnails kept in memory between epochs; beyond it the least recently used slides are looked at again."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One model to fit: on which slides, and which held-out parts it is then judged on."""

    folder: Path
    train: tuple[CohortSlide, ...]
    held_out: dict[str, tuple[CohortSlide, ...]]


class _Looks:
    """First looks at slides, kept while they fit into `LOOKS_BYTES`."""

    def __init__(self, model: AttentionSampler, cache: ChunkCache | None) -> None:
        self._model, self._cache = model, cache
        self.fingerprints: dict[str, str] = {}
        self._kept: OrderedDict[Path, Look] = OrderedDict()
        self._bytes = 0

    def __call__(self, slide: CohortSlide) -> Look:
        if slide.path in self._kept:
            self._kept.move_to_end(slide.path)
            return self._kept[slide.path]
        fresh = look(slide.path, self._model, mpp=slide.mpp, cache=self._cache)
        self._kept[slide.path] = fresh
        self.fingerprints[slide.slide_id] = fresh.slide.facts.fingerprint
        self._bytes += fresh.thumbnail.rgb.nbytes
        while self._bytes > LOOKS_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.thumbnail.rgb.nbytes
        return fresh


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
        samples=config.sampling.samples,
        control=config.sampling.control_variate,
        inner_mpp=config.attention.inner_mpp,
        region_cells=config.attention.region_cells if config.attention.inner_mpp else 1,
        region_samples=config.attention.region_samples if config.attention.inner_mpp else 1,
        snap=config.sampling.snap,
    )


def train_cohort(config: Config, out: Path, *, say: Say) -> dict[str, Any]:
    """Train on the configured cohort and write ``model.safetensors``, ``predictions.csv`` and ``metrics.json``.

    With a split column the model is fitted on "train" and judged on "val" and "test"; otherwise every fold is held out
    in turn, and the model that is kept is then fitted on all slides. A rerun goes on from the last finished epoch.

    Returns:
        The metrics, as written.

    Raises:
        UsageError: configuration, table or folder cannot be used, or no slide of some class can be read.
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
    say(cohort.reading)
    spec = model_spec(config, cohort.classes)
    try:
        untrained = AttentionSampler(spec, encoder_weights=config.encoder.weights)
        untrained.encoder(torch.zeros(1, spec.patch_px, spec.patch_px, 3, dtype=torch.uint8))
    except (ValueError, ImportError) as exc:
        raise UsageError(f"encoder: {exc}") from exc
    except (RuntimeError, AssertionError) as exc:  # networks of a fixed input size
        raise UsageError(
            f"encoder: {spec.encoder!r} cannot take patches of view.patch_px={spec.patch_px}: {exc}"
        ) from exc
    prepare_output(out, names=TRAINING)
    kept = config.reading.cache
    cache = None if kept is None else chunk_cache(kept, round(config.reading.cache_gb * 1e9))
    looks = _Looks(untrained, cache)  # a first look needs only the model's geometry
    usable, excluded = _first_looks(cohort.slides, looks, say)
    rows: list[dict[str, Any]] = []
    jobs = _jobs(usable, config, out)
    twins = [refuse_twins({"train": job.train, **job.held_out}, looks.fingerprints) for job in jobs]
    for warning in dict.fromkeys(one for found in twins for one in found):
        say(f"warning: {warning}")
    for job in jobs:
        model = _fit(job, spec, config, looks, say)
        for part, slides in job.held_out.items():
            rows += [{"part": part, **_predict(model, slide, looks(slide), config)} for slide in slides]
    metrics: dict[str, Any] = {"classes": list(spec.classes), "excluded": excluded}
    for part in dict.fromkeys(row["part"] for row in rows):
        metrics[part] = _judge([row for row in rows if row["part"] == part], spec.classes)
        say(f"{part}: {in_words(metrics[part])}")
        for site, scores in metrics[part].get("sites", {}).items():
            say(f"{part}, site {site}: {in_words(scores)}")
    write_table(out / "predictions.csv", rows)
    write_json(out / "metrics.json", metrics)
    return metrics


def _first_looks(
    slides: Sequence[CohortSlide], looks: _Looks, say: Say
) -> tuple[tuple[CohortSlide, ...], dict[str, str]]:
    """The slides that can be trained on, and why the others cannot: one bad slide must not cost the cohort."""
    usable, excluded = [], {}
    for number, slide in enumerate(slides, 1):
        try:
            looks(slide)
            usable.append(slide)
        except Exception as exc:
            excluded[slide.slide_id] = str(exc)
            say(f"[{number}/{len(slides)}] left out: {slide.slide_id}: {exc}")
    say(f"looked at {len(slides)} slides: {len(usable)} usable, {len(excluded)} left out")
    missing = sorted({s.label for s in slides if s.label} - {s.label for s in usable})
    if missing:
        raise UsageError(
            f"no slide labelled {missing[0]!r} can be read: see the lines above for what is wrong with each"
        )
    return tuple(usable), excluded


def _jobs(slides: tuple[CohortSlide, ...], config: Config, out: Path) -> list[_Job]:
    """What to fit: one model where the table splits the slides, else one a fold and a last one on all of them."""
    if config.training.folds is None and any(slide.split for slide in slides):
        parts = {name: tuple(s for s in slides if s.split == name) for name in ("train", "val", "test")}
        return [_Job(out, parts.pop("train"), {name: part for name, part in parts.items() if part})]
    told = config.training
    fold_of = split_cohort(slides, folds=told.folds, seed=told.seed, path=out / "splits.csv", by=told.folds_by)
    jobs = [
        _Job(
            out / f"fold-{k}",
            tuple(s for s in slides if fold_of[s.slide_id] != k),
            {"cross-validation": tuple(s for s in slides if fold_of[s.slide_id] == k)},
        )
        for k in sorted(set(fold_of.values()))
    ]
    return [*jobs, _Job(out, slides, {})]


def _fit(job: _Job, spec: ModelSpec, config: Config, looks: _Looks, say: Say) -> AttentionSampler:
    """Fit one model, or load it where the same one was fitted before."""
    job.folder.mkdir(parents=True, exist_ok=True)
    path, mark = job.folder / "model.safetensors", job.folder / "training.json"
    key = _key(job, config)
    earlier = read_json(mark)
    if earlier is not None and earlier.get("key") == key and path.exists():
        say(f"{path} is up to date")
        return load_model(path)
    torch.manual_seed(config.training.seed)
    model = AttentionSampler(spec, encoder_weights=config.encoder.weights)
    started = time.perf_counter()
    from pipeline.train.fit import fit  # Lightning takes seconds to import

    checkpoint = job.folder / f"training-{key[:12]}.ckpt"
    labels = [spec.classes.index(str(slide.label)) for slide in job.train]
    fit(
        model,
        lambda index: looks(job.train[index]).view,
        labels,
        checkpoint=checkpoint,
        samples=config.sampling.train_samples or config.sampling.samples,
        say=say,
        **config.training.model_dump(exclude={"folds", "folds_by", "calibration_slides"}),
    )
    model.eval()
    if config.training.calibration_slides:
        views = [lambda slide=slide: looks(slide).view for slide in _calibration_slides(job, config)]
        model.calibration = calibrate(model, views, seed=config.training.seed, say=say)
    save_model(model, path)
    done = {"key": key, "seconds": time.perf_counter() - started, "config": config.model_dump(mode="json")}
    write_json(mark, done)
    checkpoint.unlink(missing_ok=True)
    say(f"fitted on {len(job.train)} slides in {done['seconds']:.0f} s: {path}")
    return model


def _calibration_slides(job: _Job, config: Config) -> list[CohortSlide]:
    """The slides that are read whole for the intervals: those that training did not see first."""
    return [*job.held_out.get("val", ()), *job.train][: config.training.calibration_slides]


def _key(job: _Job, config: Config) -> str:
    read = {s.slide_id: s for s in (*job.train, *_calibration_slides(job, config))}
    slides = sorted((s.slide_id, str(s.path), s.path.stat().st_size, s.label, s.mpp) for s in read.values())
    told = config.model_dump(mode="json", exclude={"training": {"device"}, "reading": True})
    return hashlib.sha256(json.dumps([slides, told], sort_keys=True, default=str).encode()).hexdigest()


def _predict(model: AttentionSampler, slide: CohortSlide, shown: Look, config: Config) -> dict[str, Any]:
    generator = shown.generator(config.training.seed, model.device)
    found = model.sample(shown.view, generator=generator).prediction
    columns = {"": found.probabilities, "_low": found.low, "_high": found.high}
    return {
        "slide_id": slide.slide_id,
        "patient": slide.patient,
        "label": slide.label,
        "site": slide.site,
        **{f"prob_{c}{end}": float(v[i]) for end, v in columns.items() for i, c in enumerate(model.spec.classes)},
    }


def _judge(rows: list[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    probabilities = np.array([[row[f"prob_{c}"] for c in classes] for row in rows])
    label, patient, site = ([row[key] for row in rows] for key in ("label", "patient", "site"))
    return evaluate(label, probabilities, patient, classes, sites=site)
