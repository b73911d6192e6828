"""One slide of a run: predict it, write its folder, or say why not. The one place where a slide's exceptions end."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
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
from pipeline.output.documents import plain
from pipeline.output.run_record import NOTICE
from pipeline.output.slide_folder import begin_slide, read_commit, slide_key, write_commit
from pipeline.predict import SlidePrediction, decision_of, predict_slide
from pipeline.refer.referral import Referral, referral
from pipeline.run.artefacts import ARTEFACTS, evidence_of, told_class, write_artefacts
from pipeline.run.pictures import draw_pictures, drawn_by, told_in_pictures
from pipeline.run.process import memory_share
from pipeline.words import tell
from stages.budget import need_of, own_peak
from stages.disk import PREFIX
from stages.lease import HeldError, lease
from stages.passing import again
from stages.prior import Prior
from stages.pyramid.open import open_pyramid

_RECORDED = {"slide_bytes": int, "words": dict, "evidence": dict, "pictures": dict, "path": str, "fingerprint": str}
BUSY = "busy"
"""Status of a slide whose folder another process is writing."""
RESULTS_VERSION = 6
"""Raised when a change here or in the stages changes results, so that earlier ones count as stale."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run predicts; None means what the model says.

    Attributes:
        model: checkpoint path, readable by every worker.
        samples: patches per slide; with a tolerance or a decision, at most.
        tolerance: read on until no interval reaches farther than this from its probability.
        decide, risk, positive: read on until it is settled on which side of a threshold a class lies: see
            `pipeline.predict.decision_of`.
        scheme: how they are drawn.
        mpp: µm per level-0 pixel for every slide that the cohort table gives none for.
        seed: of the draws; each slide's own seed follows from it and the slide's content.
        device: "auto" is a GPU where the worker has one.
        prior: what half of each draw goes by: a folder of maps, one a slide, or a network that makes them.
        refer: the stated error of label sets; None: none are made.
        by_class: whether it is stated of the slides of each class.
        memory: bytes that a process may take: a slide that needs more is refused; None: what whoever started the
            process allows it.
        strict: refuse slides whose resolution something else in the file contradicts.
        encoder_weights: of the model's frozen encoder, where they are not those that its name stands for.
        features: folder that keeps what a frozen encoder makes of patches; None: the machine's own.
    """

    model: Path
    samples: int | None = None
    tolerance: float | None = None
    decide: float | None = None
    risk: float | None = None
    positive: str | None = None
    scheme: str | None = None
    mpp: float | None = None
    seed: int = 0
    device: str = "auto"
    strict: bool = False
    encoder_weights: Path | None = None
    features: Path | None = None
    prior: Prior | None = None
    refer: float | None = None
    by_class: bool = False
    memory: int | None = None


def process_slide(
    slide: CohortSlide, out: Path, settings: RunSettings, digest: str, wait: bool = True
) -> dict[str, Any]:
    """Predict one slide and write its artefacts, or say why not: the one place where a slide's exceptions end.

    Of one slide's folder there is one writer at a time. Where that is another process, its end is waited for, or the
    status is `BUSY`.

    Returns:
        The slide's row of predictions.csv, and of a predicted slide also ``slide_bytes``, ``words`` and ``gallery`` of
        its commit mark, ``reused``: whether an earlier result was still valid, and ``trained_on``: whether the model
        was fitted to it; with label sets ``calibrated_on``: whether they were to it. Of any slide ``peak``: the most
        memory that this process has held so far.
    """
    started = time.perf_counter()
    try:
        if slide.problem:
            raise ValueError(slide.problem)
        folders = out / "slides"
        folders.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(slide.slide_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        with lease(folders / f"{PREFIX}slide-{name}", wait=wait):
            row = again(lambda: _predict_slide(slide, out, settings, digest, started))
    except HeldError:
        row = {"status": BUSY}
    except Exception as exc:
        row = {"status": "failed", "error": reason_of(exc), "seconds": time.perf_counter() - started}
    return {"slide_id": slide.slide_id, "path": str(slide.path), **row, "peak": own_peak()}


def _predict_slide(slide: CohortSlide, out: Path, settings: RunSettings, digest: str, started: float) -> dict[str, Any]:
    model = _worker_model(settings.model, digest, settings.device, settings.encoder_weights, settings.features)
    mpp = slide.mpp if slide.mpp is not None else settings.mpp
    folder = out / "slides" / slide.slide_id
    opened = open_pyramid(slide.path, mpp=mpp)
    facts = opened.facts
    if settings.strict:
        facts.refuse_doubt()
    prior = None if settings.prior is None else settings.prior.of(slide.slide_id)
    decide = decision_of(model.spec, settings.decide, settings.risk, settings.positive)
    parts = {
        **_of_run(settings, model, digest),
        "mpp": mpp,
        **({} if prior is None else {"prior": prior.digest()}),
        # a slide that is read otherwise than its file claims is another slide
        **({"warnings": facts.warnings} if facts.warnings else {}),
    }
    key = slide_key(facts.fingerprint, parts)
    known: dict[str, Any] = {"trained_on": facts.fingerprint in model.trained_on}
    if settings.refer is not None and model.label_calibration is not None:
        known["calibrated_on"] = facts.fingerprint in model.label_calibration.slides
    commit = read_commit(folder)
    if (
        commit is not None
        and commit["key"] == key
        and whole(folder, commit, model.spec.classes)
        and _drawn(folder, commit)
    ):
        return {**commit["row"], **told_of(commit), "reused": True, **known}
    if commit is not None and commit["fingerprint"] != facts.fingerprint and commit["path"] != str(slide.path):
        raise ValueError(
            f"{folder} already holds another slide of this name ({commit['path']}): "
            "use another --out or rename the slide"
        )
    spec = model.spec
    scales = [mpp for mpp in (spec.patch_mpp, spec.inner_mpp, spec.coarse_mpp) if mpp is not None]
    memory = memory_share() if settings.memory is None else settings.memory
    need_of(facts, thumbnail_mpp=spec.attention_mpp, mpps=scales).refuse_over(memory)
    found = predict_slide(
        opened,
        model,
        samples=settings.samples,
        tolerance=settings.tolerance,
        decide=decide,
        scheme=settings.scheme,
        seed=settings.seed,
        prior=prior,
        refer=referral_of(settings, model),
    )
    run = run_digest(settings, model, digest)
    return {**_write_slide(slide, folder, key, run, found, started), **known}


def _of_run(settings: RunSettings, model: SlideModel, digest: str) -> dict[str, Any]:
    """What the results of all slides of a run depend on."""
    decide = decision_of(model.spec, settings.decide, settings.risk, settings.positive)
    return {
        "version": RESULTS_VERSION,
        "model": digest,
        "samples": settings.samples if settings.tolerance or decide else settings.samples or model.spec.samples,
        "tolerance": settings.tolerance,
        "scheme": settings.scheme or model.spec.scheme,
        "seed": settings.seed,
        **({} if decide is None else {"decide": asdict(decide)}),
        **({} if settings.refer is None else {"refer": [settings.refer, settings.by_class]}),
    }


def run_digest(settings: RunSettings, model: SlideModel, digest: str) -> str:
    """What tells a run from those with another model or other settings, whatever their slides."""
    prior = None if settings.prior is None else asdict(settings.prior)
    parts = [_of_run(settings, model, digest), settings.mpp, plain(prior)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
        reads_on=settings.tolerance is not None or settings.decide is not None,
        scheme=settings.scheme,
        prior=settings.prior is not None,
    )


def _write_slide(
    slide: CohortSlide, folder: Path, key: str, run: str, found: SlidePrediction, started: float
) -> dict[str, Any]:
    facts = found.slide.facts
    mpp = facts.require_mpp()
    seconds = time.perf_counter() - started
    row: dict[str, Any] = {"status": "ok", "error": "", **found.columns(), "seconds": seconds, "key": key}
    row["warnings"] = list(found.warnings)
    begin_slide(folder)
    gallery = write_artefacts(folder, slide.slide_id, found)
    commit = {
        "key": key,
        "run": run,
        "fingerprint": facts.fingerprint,
        "path": str(slide.path),
        "notice": NOTICE,
        "row": row,
        "quality": found.quality and found.quality.to_json(),
        "words": tell(found),
        "evidence": evidence_of(found) | {"gallery": gallery},
        "pictures": told_in_pictures(slide.slide_id, found, told_class(found)) | {"drawn_by": drawn_by()},
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
    draw_pictures(folder, commit)
    write_commit(folder, commit)
    return {**row, **told_of(commit), "reused": False}


def _drawn(folder: Path, commit: dict[str, Any]) -> bool:
    """Draw a finished slide's pictures anew where they are drawn otherwise now; False where what they are drawn from is
    damaged, so that the slide is to be read again."""
    now = drawn_by()
    if commit["pictures"].get("drawn_by") == now:
        return True
    try:
        draw_pictures(folder, commit)
    except (OSError, ValueError, LookupError, TypeError, UsageError):
        return False
    write_commit(folder, {**commit, "pictures": {**commit["pictures"], "drawn_by": now}})
    return True


def whole(folder: Path, commit: Mapping[str, Any], classes: Sequence[str]) -> bool:
    """Whether all is there that a finished slide has, and its record says what one says."""
    row = commit.get("row")
    numbers = [f"prob_{name}{end}" for name in classes for end in ("", "_low", "_high")]
    numbers += ["patches_read", "cells", "fraction_read", "bytes_read", "seconds"]
    return (
        isinstance(row, dict)
        and row.get("status") == "ok"
        and row.get("predicted") in classes
        and all(isinstance(row.get(name), int | float) for name in numbers)
        and isinstance(row.get("warnings"), list)
        and all(isinstance(commit.get(name), kind) for name, kind in _RECORDED.items())
        and set(os.listdir(folder)) >= ARTEFACTS
    )


def told_of(commit: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of a slide beside its row."""
    return {
        "slide_bytes": commit["slide_bytes"],
        "words": commit["words"],
        "gallery": commit["evidence"]["gallery"],
    }


@lru_cache(maxsize=1)
def _worker_model(
    path: Path, digest: str, device: str, encoder_weights: Path | None, features: Path | None
) -> SlideModel:
    if model_digest(path) != digest:
        raise UsageError(f"{path} changed while the run was going on: start it again")
    return keep_features(load_model(path, device=device, encoder_weights=encoder_weights), features)
