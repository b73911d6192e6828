"""One slide of a run: predict it, write its folder, or say why not. The one place where a slide's exceptions end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.asked import decision_of
from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import UsageError, reason_of
from pipeline.garbage import uncollected
from pipeline.model.header import Known, Knows, model_digest, read_known, told_of_encoder
from pipeline.model.spec import refuse_coarser, task_of
from pipeline.output.documents import plain
from pipeline.output.failures import Failures
from pipeline.output.run_record import NOTICE
from pipeline.output.slide_folder import (
    begin_slide,
    lease_of,
    read_commit,
    sizes_of,
    slide_key,
    state_of,
    write_commit,
)
from pipeline.run.artefacts import DATA, evidence_of, told_name, write_artefacts
from pipeline.run.keys import RunSettings, known_of, made_of_all, referral_of, run_digest
from pipeline.run.outage import outage_row
from pipeline.run.pictures import PICTURES, draw_pictures, drawn_by, told_in_pictures
from pipeline.run.process import alive, memory_share
from pipeline.run.stale import differing
from pipeline.run.whole import drawn, told_of, whole
from pipeline.run.workers import BUSY, WAITING
from pipeline.stopwatch import measuring, stage
from pipeline.words import tell
from stages.bags.bag_slide import BagSlide
from stages.budget import Need, need_of, own_peak
from stages.lease import HeldError, lease
from stages.passing import again
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideFacts
from stages.slide.protocol import Slide
from stages.slide.revision import Revision

if TYPE_CHECKING:  # which compute
    from pipeline.model.slide_model import SlideModel
    from pipeline.predict import SlidePrediction
    from stages.prior import Prior


def process_slide(
    slide: CohortSlide, out: Path, settings: RunSettings, digest: str, begin: bool = True, wait: bool = True
) -> dict[str, Any]:
    """Predict one slide and write its artefacts, or say why not: the one place where a slide's exceptions end.

    Slides have folders in ``out / "slides"``, which is there. Of one slide's folder there is one writer at a time.
    Where that is another process, its end is waited for, or the status is `BUSY`; where ``out`` can be written to no
    more, it is `OUTAGE`. Where no valid result stands and none is to be begun, it is `WAITING`.

    Returns:
        The slide's row of predictions.csv, and of a predicted slide also ``slide_bytes``, ``words`` and ``gallery`` of
        its commit mark, ``reused``: whether an earlier result was still valid, and ``seen``: whether the model was made
        with it, and how (`pipeline.run.counting.seen_by`); with label sets ``calibrated_on``: whether they were to it.
        Of any slide ``peak``: the most memory that this process has held so far; and of one that was worked on
        ``stages``, what each took.
    """
    started = time.perf_counter()

    def act() -> dict[str, Any]:
        if slide.problem:
            raise ValueError(slide.problem)
        return _predict_slide(slide, out, settings, digest, started, begin)

    return attempted(slide, out, lease_of(out / "slides", slide.slide_id), act, begin=begin, wait=wait)


def attempted(
    slide: CohortSlide, out: Path, held: Path, act: Callable[[], dict[str, Any]], *, begin: bool, wait: bool
) -> dict[str, Any]:
    """The row of a slide, or of a patient, that ``act`` makes while nobody else has the lease ``held``: see
    `process_slide`."""
    started = time.perf_counter()
    try:
        with lease(held, wait=wait), measuring() as spent:
            row = again(act)
            row["stages"] = {name: {key: round(one, 4) for key, one in told.items()} for name, told in spent.items()}
    except HeldError:
        row = {"status": BUSY}
    except Exception as exc:
        seconds = time.perf_counter() - started
        row = outage_row(exc, out) or {"status": "failed", "error": reason_of(exc), "seconds": seconds}
        if not begin and row["status"] == "failed":
            row = {"status": WAITING, "error": f"not tried: {row['error']}"}
    return {"slide_id": slide.slide_id, "path": str(slide.path), **row, "peak": own_peak()}


def _predict_slide(
    slide: CohortSlide, out: Path, settings: RunSettings, digest: str, started: float, begin: bool
) -> dict[str, Any]:
    model = known_model(settings.model, digest, settings.encoder_weights)
    with stage("open"):
        found = standing(slide, out, settings, model, digest)
    facts, failures = found.slide.facts, Failures(out, "run")
    known = known_of(settings, model, facts.fingerprint)
    if found.commit is not None and kept(out / "slides" / slide.slide_id, found.commit, slide, facts):
        failures.forget(slide.slide_id, slide.path)
        return {**found.commit["row"], **told_of(found.commit), "reused": True, **known}
    if not begin:
        return {"status": WAITING, "error": f"not tried: {found.stale}" if found.stale else ""}
    need_for(found.slide, model).refuse_over(allowed(settings))
    alive(f"{slide.slide_id}: at work")
    from pipeline.predict import predict_slide  # which computes: not for what is refused, or stands as it is

    how, refer = asked(settings, model), referral_of(settings, model)
    computes = worker_model(settings.model, digest, settings.device, settings.encoder_weights, settings.features)
    predicted = predict_slide(found.slide, computes, **how, prior=found.prior, refer=refer)
    failures.forget(slide.slide_id, slide.path)
    run = run_digest(settings, model, digest)
    told = {"run": run, "encoder": told_of_encoder(model)}
    return {**_write_slide(slide, out, found, told, predicted, started), **known}


def allowed(settings: RunSettings) -> int | None:
    """Bytes that this process may take."""
    return memory_share() if settings.memory is None else settings.memory


def asked(settings: RunSettings, model: Knows) -> dict[str, Any]:
    """How a slide, or a patient, is predicted, as `predict_slide` and `predict_patient` take it."""
    return {
        "samples": settings.samples,
        "tolerance": settings.tolerance,
        "decide": decision_of(model.spec, settings.decide, settings.risk, settings.positive),
        "scheme": settings.scheme,
        "seed": settings.seed,
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """How a slide stands before a run does anything for it.

    Attributes:
        slide: opened.
        key: of its result as it would be now.
        made_of: what that follows from beside its content.
        commit: of its result where that is valid; then nothing is to be done but drawing its pictures, see `drawn`.
        stale: why one that is there is not; "" where there is none.
        prior: of this slide, where the run has one.
    """

    slide: Slide
    key: str
    made_of: dict[str, Any]
    commit: dict[str, Any] | None = None
    stale: str = ""
    prior: Prior | None = None


def standing(slide: CohortSlide, out: Path, settings: RunSettings, model: Knows, digest: str) -> Standing:
    """Decide whether a run has anything to do for a slide: what `process_slide` and a dry run go by.

    Raises:
        SlideError, ValueError: it cannot be predicted, or its folder holds another slide.
    """
    mpp = slide.mpp if slide.mpp is not None else settings.mpp
    folder = out / "slides" / slide.slide_id
    opened = opened_for(slide, settings)
    facts = opened.facts
    prior = None if settings.prior is None else settings.prior.of(slide.slide_id)
    made_of = made_of_all(settings, model, digest, mpp=mpp, prior=prior, warnings=facts.warnings)
    found = Standing(opened, slide_key(facts.fingerprint, made_of), made_of, prior=prior)
    commit = read_commit(folder)
    if commit is None:
        return found
    if commit["key"] == found.key:
        if not whole(folder, commit, task_of(model.spec)):
            return replace(found, stale="something of it is gone or damaged")
        recorded = Revision.recorded(commit.get("revision"))
        if facts.unchanged(recorded):
            return replace(found, commit=commit)
        if recorded is None or recorded.digest is None:
            return replace(found, stale="no digest tells whether its file, which was written since, has changed")
        return replace(found, stale="its file has changed")
    if commit.get("fingerprint") != facts.fingerprint and commit.get("path") != str(slide.path):
        raise ValueError(
            f"{folder} already holds another slide of this name ({commit.get('path')}): "
            "use another --out or rename the slide"
        )
    return replace(found, stale=differing(commit, facts.fingerprint, made_of))


def opened_for(slide: CohortSlide, settings: RunSettings) -> Slide:
    """A slide, opened as a run's settings ask.

    Raises:
        SlideError, ValueError: it cannot be, or it is doubtful and ``strict`` refuses that.
    """
    opened = open_pyramid(slide.path, mpp=slide.mpp if slide.mpp is not None else settings.mpp)
    if settings.verify:
        opened.facts = opened.facts.with_digest()
    if settings.strict:
        opened.facts.refuse_doubt()
    return opened


def need_for(slide: Slide, model: Knows) -> Need:
    """What predicting a slide takes.

    Raises:
        SlideError: its resolution is unknown, or coarser than what is read.
    """
    spec = model.spec
    if isinstance(slide, BagSlide):
        return Need(tile=(0, 0))  # nothing is decoded, and features are there for all of it anyway
    refuse_coarser(slide.facts, spec)
    scales = [mpp for mpp in (spec.patch_mpp, spec.inner_mpp, spec.coarse_mpp) if mpp is not None]
    return need_of(slide.facts, thumbnail_mpp=spec.attention_mpp, mpps=scales)


def _write_slide(
    slide: CohortSlide, out: Path, stands: Standing, told: Mapping[str, Any], found: SlidePrediction, started: float
) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    row: dict[str, Any] = {"status": "ok", "error": "", **found.columns(), "seconds": seconds, "key": stands.key}
    row["warnings"] = list(found.warnings)
    commit = write_result(slide, out, found, {"key": stands.key, "made_of": stands.made_of, **told, "row": row})
    return {**row, **told_of(commit), "reused": False}


def write_result(
    slide: CohortSlide,
    out: Path,
    found: SlidePrediction,
    told: Mapping[str, Any],
    *,
    name: str | None = None,
    scale: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Write all of a slide's folder: what was found, and, last, its commit mark, which is returned.

    Args:
        slide: which; ``out`` is the run's folder.
        found: what is said of it.
        told: of the commit mark its key, what that follows from, the run, the encoder and the row.
        name: that pictures call it by; default: its own.
        scale: of their colours, see `pipeline.run.pictures.scale_of`; default: its own.
    """
    facts, folder, name = found.slide.facts, out / "slides" / slide.slide_id, name or slide.slide_id
    mpp = facts.require_mpp()
    begin_slide(folder)
    with stage("write"):
        gallery = write_artefacts(folder, slide.slide_id, found)
    commit = {
        **told,
        "fingerprint": facts.fingerprint,
        **state_of(facts),
        "path": str(slide.path),
        "notice": NOTICE,
        "quality": found.quality and found.quality.to_json(),
        "words": tell(found),
        "evidence": evidence_of(found) | {"gallery": gallery},
        "pictures": told_in_pictures(name, found, told_name(found), scale) | {"drawn_by": drawn_by()},
        **({} if found.label_set is None else {"label_set": asdict(found.label_set)}),
        "attention_not_read": found.attention_not_read,
        "regions_opened": found.regions_opened,
        "slide_bytes": facts.file_bytes,
        "bytes_exact": all(found.slide.direct(i) for i in range(len(facts.levels))),
        "tiles_read": found.cost.tiles,
        "pixels_read": found.cost.pixels,
        "mpp": [mpp.x, mpp.y],
        "bounds_level0": [facts.bounds.x, facts.bounds.y, facts.bounds.width, facts.bounds.height],
        "origin_level0": list(facts.origin),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with stage("draw pictures"):
        draw_pictures(folder, commit)
    write_commit(folder, {**commit, "files": sizes_of(folder, DATA | PICTURES)})
    return commit


def kept(folder: Path, commit: dict[str, Any], slide: CohortSlide, facts: SlideFacts) -> bool:
    """Bring a valid result up to date without reading its slide: where the slide is and the state of its files, and
    pictures that are damaged, or drawn otherwise now. False where what they are drawn from is damaged, so that the
    slide is to be read again."""
    now = {**commit, "path": str(slide.path), **plain(state_of(facts, Revision.recorded(commit.get("revision"))))}
    if not drawn(folder, commit):
        try:
            draw_pictures(folder, commit)
        except (OSError, ValueError, LookupError, TypeError, UsageError):
            return False
        now["pictures"] = {**commit["pictures"], "drawn_by": drawn_by()}
        if "files" in commit:
            now["files"] = {**commit["files"], **sizes_of(folder, PICTURES)}
    if now != commit:
        write_commit(folder, now)
    return True


@lru_cache(maxsize=1)
def known_model(path: Path, digest: str, encoder_weights: Path | None) -> Known:
    """What is known of a run's model."""
    _refuse_changed(path, digest)
    return read_known(path, encoder_weights=encoder_weights)


@lru_cache(maxsize=1)
def worker_model(
    path: Path, digest: str, device: str, encoder_weights: Path | None, features: Path | None
) -> SlideModel:
    """A run's model where it computes."""
    with uncollected():
        from pipeline.model.build import keep_features
        from pipeline.model.checkpoint import load_model

    _refuse_changed(path, digest)
    return keep_features(load_model(path, device=device, encoder_weights=encoder_weights), features)


def _refuse_changed(path: Path, digest: str) -> None:
    if model_digest(path) != digest:
        raise UsageError(f"{path} changed while the run was going on: start it again")


def opens_any(slides: Sequence[CohortSlide], settings: RunSettings) -> bool:
    """Whether one of these slides can be opened, so that there is something to compute."""
    for slide in slides:
        with suppress(Exception):  # what it was is told where the slide's turn comes
            if not slide.problem:
                opened_for(slide, settings)
                return True
    return False


def lacks_model(settings: RunSettings, digest: str) -> str | None:
    """What keeps this process from computing with a run's model, and what to do; None: nothing, and the model is here,
    ready for its slides."""
    try:
        worker_model(settings.model, digest, settings.device, settings.encoder_weights, settings.features)
    except UsageError as exc:
        return str(exc)
    return None
