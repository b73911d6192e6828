"""How many patches are enough: one rule, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.bench.ways import ATTENTION, DECIDE, EVERYTHING, NOTHING, TOLERANCE
from pipeline.task.task import Task
from stages.amounts import counted

FEW_SLIDES = 20
"""Slides below which a recommendation is said to rest on few."""
NEAR, AGREE = 0.005, 0.99
"""How far an AUROC may be from that of reading everything, and the share of decisions that must be alike."""
READ_ON = (TOLERANCE, DECIDE)
"""Ways whose settings are options of `saccade run` of the same names."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What a bench comes to.

    Attributes:
        samples: patches a slide; None: none of those that were tried is enough.
        words: the rule, what it found and what to do, in a few sentences.
    """

    samples: int | None
    words: str


def recommend(rows: Sequence[Mapping[str, Any]], task: Task, *, own: int) -> Recommendation:
    """The smallest number of patches from which on nothing is lost by not reading everything.

    It is the smallest N of the model's own draws such that for N and every larger one that was tried at least `AGREE`
    of the decisions are those of reading everything (`Task.alike`), the task's first metric, in the mean, is within
    `NEAR` of its (where labels tell one), and the prediction is nearer than without any patch (where a coarse scale is
    read anyway): the noise of a few patches may be larger than what they tell.

    Args:
        rows: see `table_of`.
        task: what is predicted.
        own: the model's own number.
    """
    tried = sorted((row for row in rows if row["way"] == ATTENTION), key=lambda row: row["setting"])
    (whole,) = (row for row in rows if row["way"] == EVERYTHING)
    without = [row for row in rows if row["way"] == NOTHING]
    key, name = task.metric.key, task.metric.name
    labelled = whole.get(key) is not None

    def alike(row: Mapping[str, Any]) -> bool:
        return row["agreement"] >= AGREE and not (labelled and abs(row[key] - whole[key]) > NEAR)

    enough: list[Mapping[str, Any]] = []
    for row in reversed(tried):
        if not alike(row) or any(row["difference"] > one["difference"] for one in without):
            break
        enough.insert(0, row)
    conditions = [f"at least {AGREE:.0%} of the {task.alike_by} are those of reading everything"]
    conditions += [f"the {name} is within {NEAR:g} of its"] if labelled else []
    conditions += ["the prediction is nearer than without any patch"] if without else []
    *first, last = conditions
    rule = f"the smallest number from which on {' and '.join([*([', '.join(first)] if first else []), last])}"
    reading_on = [row for row in rows if row["way"] in READ_ON and alike(row)]
    sparing = min(reading_on, key=lambda row: row["patches"], default=None)
    adaptive = ""
    if sparing is not None and (not enough or sparing["patches"] < enough[0]["patches"]):
        adaptive = (
            f" Reading on only where it is needed takes fewer: `saccade run --{sparing['way']} {sparing['setting']:g}` "
            f"reads {sparing['patches']:.0f} in the mean, with {sparing['agreement']:.1%} of the {task.alike_by} alike."
        )
    if not enough:
        most = tried[-1]
        return Recommendation(
            None,
            f"No number that was tried is enough ({rule}): at {most['setting']:g} patches "
            f"{_told(most, whole, task)}. Try more with --samples.{adaptive}",
        )
    samples, row = int(enough[0]["setting"]), enough[0]
    ending = f"Write `samples: {samples}` below `sampling:` in the configuration, or `saccade run --samples {samples}`."
    ending = "That is the model's own number: leave it as it is." if samples == own else ending
    coarse = "".join(
        f"The coarse scale alone decides as reading everything does, in {one['agreement']:.1%}: patches only make "
        "probabilities nearer. "
        for one in without
        if alike(one)
    )
    only = f" That is of {counted(whole['slides'], 'slide')} only: try it on more."
    few = only if whole["slides"] < FEW_SLIDES else ""
    share = f"{row['patches'] / whole['patches']:.1%} of all"
    return Recommendation(
        samples,
        f"{coarse}Recommended: {samples} patches a slide ({share}): {_told(row, whole, task)}. It is {rule}.{few} "
        f"{ending}{adaptive}",
    )


def _told(row: Mapping[str, Any], whole: Mapping[str, Any], task: Task) -> str:
    told, key = f"{row['agreement']:.1%} of {row['decisions']} {task.alike_by} are alike", task.metric.key
    if whole.get(key) is not None:
        told += f", {task.metric.name} {row[key]:.3f} against {whole[key]:.3f}"
    return f"{told}, |p - p*| {row['difference']:.4f}"
