"""One slide of a run: predict it, write its folder, or say why not. The one place where a slide's exceptions end."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError, reason_of
from pipeline.model.build import keep_features
from pipeline.model.checkpoint import load_model, model_digest
from pipeline.model.slide_model import SlideModel
from pipeline.output.attention_map import write_attention_zarr
from pipeline.output.bags import write_samples_h5
from pipeline.output.documents import write_json
from pipeline.output.slide_folder import begin_slide, read_commit, slide_key, write_commit, write_thumbnail
from pipeline.predict import SlidePrediction, predict_slide
from pipeline.refer.referral import Referral, referral
from stages.disk import new_file
from stages.given_map import find_map
from stages.overlay.geojson import geojson
from stages.overlay.picture import draw_overlay
from stages.pyramid.open import open_pyramid

RESULTS_VERSION = 3
"""Raised when a change here or in the stages changes results, so that earlier ones count as stale."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run predicts; None means what the model says.

    Attributes:
        model: checkpoint path, readable by every worker.
        samples: patches per slide; with a tolerance, at most.
        tolerance: read on until no interval reaches farther than this from its probability.
        scheme: how they are drawn.
        mpp: µm per level-0 pixel for every slide that the cohort table gives none for.
        seed: of the draws; each slide's own seed follows from it and the slide's content.
        device: "auto" is a GPU where the worker has one.
        prior: folder of maps by which half of each draw goes, one a slide.
        refer: the stated error of label sets; None: none are made.
        by_class: whether it is stated of the slides of each class.
        strict: refuse slides whose resolution something else in the file contradicts.
        encoder_weights: of the model's frozen encoder, where they are not those that its name stands for.
        features: folder that keeps what a frozen encoder makes of patches; None: the machine's own.
    """

    model: Path
    samples: int | None = None
    tolerance: float | None = None
    scheme: str | None = None
    mpp: float | None = None
    seed: int = 0
    device: str = "auto"
    strict: bool = False
    encoder_weights: Path | None = None
    features: Path | None = None
    prior: Path | None = None
    refer: float | None = None
    by_class: bool = False


def process_slide(slide: CohortSlide, out: Path, settings: RunSettings, digest: str) -> dict[str, Any]:
    """Predict one slide and write its artefacts, or say why not: the one place where a slide's exceptions end.

    Returns:
        The slide's row of predictions.csv, and of a predicted slide also ``slide_bytes``, ``reused``: whether an
        earlier result was still valid, and ``trained_on``: whether the model was fitted to it; with label sets
        ``calibrated_on``: whether they were to it.
    """
    started = time.perf_counter()
    try:
        if slide.problem:
            raise ValueError(slide.problem)
        row = _predict_slide(slide, out, settings, digest, started)
    except Exception as exc:
        row = {"status": "failed", "error": reason_of(exc), "seconds": time.perf_counter() - started}
    return {"slide_id": slide.slide_id, "path": str(slide.path), **row}


def _predict_slide(slide: CohortSlide, out: Path, settings: RunSettings, digest: str, started: float) -> dict[str, Any]:
    model = _worker_model(settings.model, digest, settings.device, settings.encoder_weights, settings.features)
    mpp = slide.mpp if slide.mpp is not None else settings.mpp
    folder = out / "slides" / slide.slide_id
    opened = open_pyramid(slide.path, mpp=mpp)
    facts = opened.facts
    if settings.strict:
        facts.refuse_doubt()
    prior = None if settings.prior is None else find_map(settings.prior, slide.slide_id)
    parts = {
        "version": RESULTS_VERSION,
        "model": digest,
        "mpp": mpp,
        "samples": settings.samples if settings.tolerance else settings.samples or model.spec.samples,
        "tolerance": settings.tolerance,
        "scheme": settings.scheme or model.spec.scheme,
        "seed": settings.seed,
        **({} if prior is None else {"prior": hashlib.sha256(prior.read_bytes()).hexdigest()}),
        **({} if settings.refer is None else {"refer": [settings.refer, settings.by_class]}),
        # a slide that is read otherwise than its file claims is another slide
        **({"warnings": facts.warnings} if facts.warnings else {}),
    }
    key = slide_key(facts.fingerprint, parts)
    known: dict[str, Any] = {"trained_on": facts.fingerprint in model.trained_on}
    if settings.refer is not None and model.label_calibration is not None:
        known["calibrated_on"] = facts.fingerprint in model.label_calibration.slides
    commit = read_commit(folder)
    if commit is not None and commit["key"] == key:
        return {**commit["row"], "slide_bytes": commit["slide_bytes"], "reused": True, **known}
    if commit is not None and commit["fingerprint"] != facts.fingerprint and commit["path"] != str(slide.path):
        raise ValueError(
            f"{folder} already holds another slide of this name ({commit['path']}): "
            "use another --out or rename the slide"
        )
    found = predict_slide(
        opened,
        model,
        samples=settings.samples,
        tolerance=settings.tolerance,
        scheme=settings.scheme,
        seed=settings.seed,
        prior=prior,
        refer=referral_of(settings, model),
    )
    return {**_write_slide(slide, folder, key, found, started), **known}


def referral_of(settings: RunSettings, model: SlideModel) -> Referral | None:
    """How a run with these settings makes label sets; None where it makes none.

    Raises:
        UsageError: see `referral`.
    """
    if settings.refer is None:
        return None
    return referral(
        model,
        settings.refer,
        by_class=settings.by_class,
        samples=settings.samples,
        reads_on=settings.tolerance is not None,
        scheme=settings.scheme,
        prior=settings.prior is not None,
    )


def _write_slide(slide: CohortSlide, folder: Path, key: str, found: SlidePrediction, started: float) -> dict[str, Any]:
    facts, spec, boxes = found.slide.facts, found.spec, found.patch_boxes_level0
    mpp = facts.require_mpp()
    seconds = time.perf_counter() - started
    row: dict[str, Any] = {"status": "ok", "error": "", **found.columns(), "seconds": seconds, "key": key}
    row["warnings"] = list(found.warnings)
    begin_slide(folder)
    write_thumbnail(folder / "thumbnail.png", found.thumbnail.rgb)
    write_attention_zarr(folder / "attention.zarr", found.attention, found.attention_raster, mpp=mpp)
    write_samples_h5(
        folder / "samples.h5",
        slide_id=slide.slide_id,
        facts=facts,
        patch_px=spec.patch_px,
        patch_mpp=spec.patch_mpp,
        boxes_level0=boxes,
        cells=found.patch_cells,
        features=found.patch_features,
        attention=found.patch_attention,
        weights=found.patch_weights,
    )
    with new_file(folder / "overlay.png") as temporary:
        parts = (found.thumbnail, found.attention, found.attention_raster, boxes)
        draw_overlay(temporary, *parts, title=found.in_words(slide.slide_id), mpp_level0=mpp)
    outlines = geojson(
        found.attention,
        found.attention_raster,
        boxes,
        attention_at=found.patch_attention,
        weights=found.patch_weights,
        origin=facts.origin,
    )
    write_json(folder / "overlay.geojson", outlines)
    commit = {
        "key": key,
        "fingerprint": facts.fingerprint,
        "path": str(slide.path),
        "row": row,
        "quality": found.quality and found.quality.to_json(),
        **({} if found.label_set is None else {"label_set": asdict(found.label_set)}),
        "attention_not_read": found.attention_not_read,
        "regions_opened": found.regions_opened,
        "slide_bytes": facts.file_bytes,
        "bytes_exact": all(found.slide.direct(i) for i in range(len(facts.levels))),
        "tiles_read": found.cost.tiles,
        "pixels_read": found.cost.pixels,
        "mpp": [mpp.x, mpp.y],
        "bounds_level0": [facts.bounds.x, facts.bounds.y, facts.bounds.width, facts.bounds.height],
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_commit(folder, commit)
    return {**row, "slide_bytes": facts.file_bytes, "reused": False}


@lru_cache(maxsize=1)
def _worker_model(
    path: Path, digest: str, device: str, encoder_weights: Path | None, features: Path | None
) -> SlideModel:
    if model_digest(path) != digest:
        raise UsageError(f"{path} changed while the run was going on: start it again")
    return keep_features(load_model(path, device=device, encoder_weights=encoder_weights), features)
