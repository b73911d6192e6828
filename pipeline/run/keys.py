"""What a run's results follow from: its settings and its model, by which they are told from others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.asked import decision_of
from pipeline.model.header import Knows
from pipeline.output.documents import plain
from pipeline.run.counting import TRAINED, VALIDATED, seen_by

if TYPE_CHECKING:  # which compute
    from pipeline.refer.referral import Referral
    from stages.prior import Prior

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
            `pipeline.asked.decision_of`.
        scheme: how they are drawn.
        mpp: µm per level-0 pixel for every slide that the cohort table gives none for.
        seed: of the draws; each slide's own seed follows from it and the slide's content.
        device: "auto" is a GPU where the worker has one.
        prior: what half of each draw goes by: a folder of maps, one a slide, or a network that makes them.
        refer: the stated error of label sets; None: none are made.
        by_class: whether it is stated of the slides of each class.
        memory: bytes that a process may take: a slide that needs more is refused; None: what whoever started the
            process allows it.
        split, count_seen: what the metrics count: see `pipeline.run.counting.count`.
        verify: let an earlier result stand only by a digest of every byte of the slide.
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
    verify: bool = False
    split: str | None = None
    count_seen: bool = False


def made_of_all(
    settings: RunSettings,
    model: Knows,
    digest: str,
    *,
    mpp: float | None,
    prior: Prior | None,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """What a slide's results follow from beside its content."""
    return {
        **of_run(settings, model, digest),
        "mpp": mpp,
        **({} if prior is None else {"prior": prior.digest()}),
        # a slide that is read otherwise than its file claims is another slide
        **({"warnings": warnings} if warnings else {}),
    }


def known_of(settings: RunSettings, model: Knows, fingerprint: str) -> dict[str, Any]:
    """What the model knows of a slide."""
    known: dict[str, Any] = {"seen": seen_by(model, fingerprint)}
    if settings.refer is not None and model.label_calibration is not None:
        known["calibrated_on"] = fingerprint in model.label_calibration.slides
    return known


def of_run(settings: RunSettings, model: Knows, digest: str) -> dict[str, Any]:
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


def run_digest(settings: RunSettings, model: Knows, digest: str) -> str:
    """What tells a run from those with another model or other settings, whatever their slides."""
    prior = None if settings.prior is None else asdict(settings.prior)
    parts = [of_run(settings, model, digest), settings.mpp, plain(prior)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def referral_of(settings: RunSettings, model: Knows) -> Referral | None:
    """How a run with these settings makes label sets; None where it makes none.

    Raises:
        UsageError: see `referral`.
    """
    if settings.refer is None:
        return None
    from pipeline.refer.referral import referral

    return referral(
        model,
        settings.refer,
        by_class=settings.by_class,
        samples=settings.samples,
        reads_on=settings.tolerance is not None or settings.decide is not None,
        scheme=settings.scheme,
        prior=settings.prior is not None,
    )


def of_slide(made: Mapping[str, Any], settings: RunSettings, model: Knows, digest: str) -> dict[str, Any]:
    """What of all that a slide's results follow from is the slide's own."""
    return {name: value for name, value in made.items() if name not in of_run(settings, model, digest)}


def seen_of(settings: RunSettings, model: Knows, fingerprints: Sequence[str]) -> dict[str, Any]:
    """What the model knows of a patient: that it was made with one of the slides, at worst fitted to it."""
    ways = {known_of(settings, model, one)["seen"] for one in fingerprints}
    return {"seen": next((way for way in (TRAINED, VALIDATED) if way in ways), None)}
