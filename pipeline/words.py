"""A prediction in one sentence each: what, how sure, about what, on what evidence, what was not seen, what is odd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.refer.label_set import REFER, percent
from pipeline.task.task import number_in_words
from stages.amounts import apart, as_given, counted
from stages.appearance import score_in_words
from stages.prediction.chance import chance

if TYPE_CHECKING:
    from pipeline.predict import SlidePrediction

FEW = 3
"""Patches whose share of the evidence is told."""


def tell(found: SlidePrediction) -> dict[str, str]:
    """What is to be said of a prediction, a sentence or two each.

    ``what`` and ``how_sure``: the class and its interval, and that it is about reading; ``called`` and ``decided``,
    where these were asked for; ``how_good``: of the model on patients that it had not seen; ``evidence``: where it
    comes from; ``not_read``: what was not looked at; ``unusual``: how the slide differs from those of the training, and
    what is doubtful about it.
    """
    share = f"{found.patches_read} of {found.cells} patches with tissue, {found.fraction_read:.1%} of the tissue's area"
    sure = (
        "Every patch with tissue was read: nothing is left to chance, which does not mean that the model is right."
        if found.exact
        else f"Reading all the tissue would, with 95 % confidence, give {_what_would(found)}. This covers only the "
        "unread tissue, not how often the model is right."
    )
    quality = found.quality
    good = "It is not known how good the model is." if quality is None else (quality.warning or quality.in_words())
    return {
        "what": f"{_what(found)}, from {share}.",
        "how_sure": sure,
        **_called(found),
        **_decided(found),
        "how_good": _sentence(good),
        "evidence": _evidence(found),
        "not_read": _not_read(found),
        "unusual": _unusual(found),
    }


def _what(found: SlidePrediction) -> str:
    """What is predicted, without its interval."""
    values, task = found.values, found.task
    if task.kind in ("classification", "ordinal"):
        return f"{apart(str(found.predicted))}, probability {chance(values[str(found.predicted)])}"
    if task.chances:
        return ", ".join(f"{apart(name)} {chance(p)}" for name, p in values.items())
    return ", ".join(f"{name} {number_in_words(value)}" for name, value in values.items())


def _what_would(found: SlidePrediction) -> str:
    """Where what is predicted would lie, had all been read."""
    task = found.task
    if task.kind in ("classification", "ordinal"):
        return _between(*found.intervals[str(found.predicted)])
    if task.chances:
        return "; ".join(f"for {apart(name)} {_between(*ends)}" for name, ends in found.intervals.items())
    parts = ((name, *map(number_in_words, ends)) for name, ends in found.intervals.items())
    return "; ".join(
        f"{'a value' if name == 'value' else apart(name)} between {low} and {high}" for name, low, high in parts
    )


def _between(low: float, high: float) -> str:
    ends = chance(low), chance(high)
    if ends[0] == ends[1]:
        return f"a probability {'of ' if ends[0][0].isdigit() else ''}{ends[0]}"
    plain = all(end[0].isdigit() for end in ends)
    return f"a probability between {ends[0]} and {ends[1]}" if plain else f"a probability from {ends[0]} to {ends[1]}"


def _called(found: SlidePrediction) -> dict[str, str]:
    own = found.label_set
    if own is None:
        return {}
    if own.error is None:
        return {"called": f"{own.call[:1].upper()}{own.call[1:]}: {own.why}."}
    whose = "slides of each class" if own.by_class else "slides"
    error = f"at a stated error of {percent(own.error)} of {whose}"
    if own.call == REFER:
        return {"called": f"Not called but referred, {error}: {own.why}."}
    return {"called": f"Called {apart(own.call)}: the only class that may be the label, {error}."}


def _decided(found: SlidePrediction) -> dict[str, str]:
    own = found.decision
    if own is None:
        return {}
    plain = own.positive in found.task.columns
    of = own.positive if plain else f"the probability of {apart(own.positive)}"
    if own.side == "undecided":
        told = f"Not settled: reading ended before it was known on which side of {as_given(own.at)} {of} lies."
    elif found.exact:
        told = f"Settled: all the tissue was read, and {of} lies {own.side} {as_given(own.at)}."
    else:
        told = (
            f"Settled: had all the tissue been read, {of} would lie {own.side} {as_given(own.at)}, with a risk of "
            f"{as_given(own.risk)} of the other side."
        )
    return {"decided": told}


def _evidence(found: SlidePrediction) -> str:
    """Of the same class as the pictures beside it, so that plus is orange there."""
    said = found.attribution
    task = found.task
    column = task.column_of(found.predicted)
    name = task.statistics[column]
    patches = said.patches[:, column]
    order = np.argsort(-np.abs(patches))[:FEW]
    alone = f" (the strongest {len(order)} alone {_signed(patches[order].sum())})" if len(patches) > FEW else ""
    unread = (
        f"; tissue that was seen at the coarse scale only adds {_signed(said.unread[column])}"
        if said.unread.any()
        else ""
    )
    read = "was read adds" if len(patches) == 1 else "were read add"
    sums = [_signed(value) for value in (said.statistics[column], said.constant[column], patches.sum())]
    return (
        f"In {task.unit} ({'0 is an even chance, ' if task.unit == 'log-odds' else ''}plus speaks for {apart(name)}) "
        f"the prediction is {sums[0]}: it starts from "
        f"{sums[1]} without any evidence; the {counted(len(patches), 'patch')} that {read} {sums[2]}{alone}{unread}."
    )


def _not_read(found: SlidePrediction) -> str:
    if found.patches_read == found.cells:
        return "All tissue was read at the patches' resolution."
    where = "at a coarser scale" if found.spec.coarse_mpp else "on the thumbnail"
    return (
        f"{1 - found.fraction_read:.1%} of the tissue's area, with {found.attention_not_read:.1%} of the model's "
        f"attention, was seen {where} only. Glass, pen and what was not scanned was left out."
    )


def _unusual(found: SlidePrediction) -> str:
    score = found.out_of_distribution
    warned = [w for w in found.warnings if not (w.startswith("it looks unlike") and "model was trained on" in w)]
    same = [w for w in found.warnings if w not in warned]
    if score is None:
        told = "Whether the slide looks like those of the training is not known"
    elif same:  # which says the score, too
        told = f"The slide looks unlike{same[0].removeprefix('it looks unlike')}"
    else:
        told = (
            f"The slide looks {'unlike' if score > 1 else 'like'} those of the training (out-of-distribution score "
            f"{score_in_words(score)}; the limit is 1)"
        )
    return f"{told}{'; warning: ' + '; '.join(warned) if warned else ''}."


def _signed(value: float) -> str:
    told = f"{value:+.1f}"
    return told.replace("-", "\N{MINUS SIGN}") if float(told) else told[1:]


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
