"""How many patches are enough: one rule, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.bench.ways import ATTENTION, EVERYTHING

NEAR, AGREE = 0.005, 0.99
"""How far an AUROC may be from that of reading everything, and the share of decisions that must be alike."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What a bench comes to.

    Attributes:
        samples: patches a slide; None: none of those that were tried is enough.
        words: the rule, what it found and what to do, in a few sentences.
    """

    samples: int | None
    words: str


def recommend(rows: Sequence[Mapping[str, Any]], *, own: int) -> Recommendation:
    """The smallest number of patches from which on nothing is lost by not reading everything.

    It is the smallest N of the model's own draws such that for N and every larger one that was tried, the mean AUROC is
    within `NEAR` of that of reading everything (where labels tell one) and at least `AGREE` of the decisions are alike.

    Args:
        rows: see `table_of`.
        own: the model's own number.
    """
    tried = sorted((row for row in rows if row["way"] == ATTENTION), key=lambda row: row["setting"])
    (whole,) = (row for row in rows if row["way"] == EVERYTHING)
    labelled = whole.get("auroc") is not None
    enough: list[Mapping[str, Any]] = []
    for row in reversed(tried):
        if row["agreement"] < AGREE or (labelled and abs(row["auroc"] - whole["auroc"]) > NEAR):
            break
        enough.insert(0, row)
    rule = f"the smallest number of patches from which on at least {AGREE:.0%} of the decisions are alike"
    rule += f" and the AUROC is within {NEAR:g} of reading everything" if labelled else " (no AUROC without labels)"
    if not enough:
        last = tried[-1]
        told = f"{last['agreement']:.1%} of the decisions are alike"
        told += f", AUROC {last['auroc']:.3f} against {whole['auroc']:.3f}" if labelled else ""
        return Recommendation(
            None,
            f"No number that was tried is enough ({rule}): at {last['setting']:g} patches {told}. Try more with "
            "--samples, or read on where it is needed: `saccade run --tolerance 0.02`.",
        )
    samples, row = int(enough[0]["setting"]), enough[0]
    told = f"{row['agreement']:.1%} of {row['decisions']} decisions"
    told += f", AUROC {row['auroc']:.3f} against {whole['auroc']:.3f}" if labelled else ""
    where = f"`samples: {samples}` below `sampling:` in the configuration, or `saccade run --samples {samples}`"
    ending = "that is the model's own number: leave it as it is" if samples == own else f"write {where}"
    return Recommendation(
        samples,
        f"Recommended: {samples} patches a slide, {rule}: {told}, {row['patches'] / whole['patches']:.1%} of all "
        f"patches; {ending}.",
    )
