"""A prediction in one sentence each: what, how sure, about what, on what evidence, what was not seen, what is odd."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipeline.predict import SlidePrediction

FEW = 3
"""Patches whose share of the evidence is told."""


def tell(found: SlidePrediction) -> dict[str, str]:
    """What is to be said of a prediction, a sentence each.

    ``what`` and ``how_sure``: the class and its interval, and that it is about reading; ``how_good``: of the model on
    patients that it had not seen; ``evidence``: where it comes from; ``not_read``: what was not looked at; ``unusual``:
    how the slide differs from those of the training, and what is doubtful about it.
    """
    name = found.predicted
    p, (low, high) = found.probabilities[name], found.intervals[name]
    share = f"{found.patches_read} of {found.cells} patches ({found.fraction_read:.1%} of the tissue)"
    sure = (
        "Every cell was read: nothing is left to chance, which does not mean that the model is right."
        if found.exact
        else f"Had the model read all the tissue, its probability would lie from {chance(low)} to {chance(high)} (in "
        "95 % of draws); that is about unread tissue, not about how often the model is right."
    )
    quality = found.quality
    good = "How good the model is is not known." if quality is None else (quality.warning or quality.in_words())
    return {
        "what": f"{name}, probability {chance(p)}, from {share}.",
        "how_sure": sure,
        "how_good": _sentence(good),
        "evidence": _evidence(found, name),
        "not_read": _not_read(found),
        "unusual": _unusual(found),
    }


def chance(p: float) -> str:
    """A probability with as many digits as tell it from 0 and 1, four at most."""
    near = min(p, 1 - p)
    digits = 2 if near <= 0 else min(4, max(2, math.ceil(-math.log10(near))))
    if 0 < near < 0.5 * 10.0**-digits:
        return f"below {10.0**-digits:.{digits}f}" if p < 0.5 else f"above {1 - 10.0**-digits:.{digits}f}"
    return f"{p:.{digits}f}"


def _evidence(found: SlidePrediction, name: str) -> str:
    said = found.attribution
    column = found.spec.classes.index(name)
    patches = said.patches[:, column]
    total, constant = float(said.log_odds[column]), float(said.constant[column])
    order = np.argsort(-np.abs(patches))[:FEW]
    few = float(patches[order].sum())
    unread = f", {said.unread[column]:+.1f} of cells known at the coarse scale only" if said.unread.any() else ""
    return (
        f"Log-odds of {name} {total:+.1f}: {constant:+.1f} without any evidence, {patches.sum():+.1f} of the patches "
        f"read ({few:+.1f} of the strongest {len(order)}){unread}."
    )


def _not_read(found: SlidePrediction) -> str:
    if found.patches_read == found.cells:
        return "All tissue was read at the patches' resolution."
    seen = "was seen at a coarser scale only" if found.spec.coarse_mpp else "was seen on the thumbnail only"
    return (
        f"{1 - found.fraction_read:.1%} of the tissue, which has {found.attention_not_read:.1%} of the attention, "
        f"{seen}; glass, pen and what was not scanned was not looked at."
    )


def _unusual(found: SlidePrediction) -> str:
    score = found.out_of_distribution
    if score is None:
        told = "Whether the slide looks like those of the training is not known"
    elif score > 1:
        told = f"The slide looks unlike those of the training (out-of-distribution score {score:.1f}; the limit is 1)"
    else:
        told = f"The slide looks like those of the training (out-of-distribution score {score:.1f}; the limit is 1)"
    warned = "; ".join(found.warnings)
    return f"{told}{f'; warning: {warned}' if warned else ''}."


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
