"""Labelled slides of patients that a model was not trained on, read a little, to calibrate its sets of classes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.cohort.cohort import CohortSlide
from pipeline.errors import reason_of
from pipeline.model.label_calibration import LabelCalibration
from pipeline.model.look import Look
from pipeline.model.slide_model import SlideModel
from pipeline.refer.referral import rounded_up
from pipeline.refer.scores import budgets_of, slide_scores
from stages.amounts import apart
from stages.appearance import Appearance, cohort_appearance
from stages.prediction.conformal import Floats, conformalize, least_error
from stages.slide.facts import SlideError

VERSION = 1
"""Raised when a change here or in the stages changes scores."""


@dataclass(frozen=True, slots=True)
class _Scored:
    slide: CohortSlide
    fingerprint: str
    content: str
    appearance: Appearance | None
    scores: dict[int, Floats]


def calibration_key(slides: Sequence[tuple[CohortSlide, str]], budgets: Sequence[int], *, seed: int) -> str:
    """SHA-256 of what scores follow from beside the model: slides with their contents, labels, patients; draws."""
    told = sorted((content, str(slide.label), slide.patient) for slide, content in slides)
    return hashlib.sha256(json.dumps([VERSION, seed, list(budgets), told]).encode()).hexdigest()


def calibrate_labels(
    model: SlideModel,
    slides: Sequence[CohortSlide],
    look: Callable[[CohortSlide], Look],
    *,
    seed: int,
    source: str,
    say: Callable[[str], None],
    leave_out: Callable[[CohortSlide, str], None],
    samples: int | None = None,
    doubt: str | None = None,
) -> LabelCalibration | None:
    """Draw each slide again and again, and keep how its classes scored; None where not one can be read.

    A slide that cannot be read is left out; one that is there twice by its content counts once.

    Args:
        model: trained, in evaluation mode.
        slides: labelled with classes of the model's.
        look: gives the first look at one; raises `SlideError`.
        seed: of the draws.
        source, doubt: see `LabelCalibration`.
        say: progress.
        leave_out: told of each slide that is left out, and why.
        samples: one more budget.
    """
    budgets = budgets_of(model.spec, samples=samples)
    found: dict[str, _Scored] = {}
    for number, slide in enumerate(slides, 1):
        try:
            one = look(slide)
            fingerprint = one.slide.facts.fingerprint
            if fingerprint in found:
                leave_out(slide, f"it is {found[fingerprint].slide.slide_id!r} by content, which counts once")
                continue
            generator = one.generator(seed, model.drawing_device)
            scores = slide_scores(model, one.view, budgets, generator=generator)
        except SlideError as exc:  # what was not read before may be damaged
            leave_out(slide, f"when calibrating label sets: {reason_of(exc)}")
            continue
        found[fingerprint] = _Scored(slide, fingerprint, one.slide.facts.content, one.appearance, scores)
        if number % 10 == 0 or number == len(slides):
            say(f"calibrating label sets: drew {number}/{len(slides)} slides at {len(budgets)} budgets")
    if not found:
        return None
    kept = sorted(found.values(), key=lambda one: one.fingerprint)  # not by the table's order
    shown = [one.appearance for one in kept if one.appearance is not None]
    return LabelCalibration(
        conformal=conformalize(
            {n: [one.scores[n] for one in kept] for n in budgets},
            [model.spec.classes.index(str(one.slide.label)) for one in kept],
            [one.slide.patient for one in kept],
        ),
        scheme=model.spec.scheme,
        source=source,
        doubt=doubt,
        slides=frozenset(found),
        key=calibration_key([(one.slide, one.content) for one in kept], budgets, seed=seed),
        appearance=cohort_appearance(shown) if shown else None,
    )


def in_lines(found: LabelCalibration, classes: Sequence[str]) -> list[str]:
    """What is said of a calibration: of whom it is, and which errors it can be the ground for."""
    conformal = found.conformal
    per_class = [(name, conformal.patients_of(i)) for i, name in enumerate(classes)]
    each = ", ".join(f"{rounded_up(least_error(count))} for {apart(name)}" for name, count in per_class if count)
    lines = [
        f"label sets: calibrated on {found.in_words(classes)}",
        f"label sets: smallest error to state {rounded_up(least_error(conformal.patients_of()))}; by class {each}",
    ]
    missing = [name for name, count in per_class if not count]
    if missing:
        lines.append(
            f"warning: label sets: no calibration slide is labelled {', '.join(missing)}: how often such a label is "
            "missed is not known, and --by-class is not possible"
        )
    return lines + ([] if found.doubt is None else [f"warning: label sets: {found.doubt}"])
