"""Whether a model has learned: by patients that it has not seen, and by where its loss ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.model.quality import Learned, Quality
from pipeline.task.task import Metric, Task
from stages.amounts import apart, counted

PARTS = ("test", "cross-validation", "val", "out-of-bag")
"""What a verdict may be taken from. Of those with equally many patients the first is taken, since by val the epoch may
have been chosen; out-of-bag, which was trained on, comes last, however large."""
NOISE = 2.0
"""Standard errors below which a loss is not told from the base rate."""
LEAST_GAIN = 0.01
"""Share of the base rate that a loss must be below it to be called so, however many slides there are."""
FEW_PATIENTS = 100


@dataclass(frozen=True, slots=True)
class Losses:
    """Where the loss of the slides that a model was fitted to ended.

    Attributes:
        train: mean over the slides in the epoch whose weights were kept, in nats.
        error: its standard error.
        base: of one who knows how frequent classes are, and no more: the entropy of their frequencies.
    """

    train: float
    error: float
    base: float

    @property
    def at_base_rate(self) -> bool:
        """Whether nothing was learnt even of these slides, as far as noise lets one tell."""
        return self.base - self.train <= max(NOISE * self.error, LEAST_GAIN * self.base)

    def in_words(self, of: str = "class frequency") -> str:
        """Both losses; ``of`` what one guesses by who knows no slide."""
        return f"the training loss ended at {self.train:.2f}, where guessing by {of} has {self.base:.2f}"


def judge_quality(metrics: Mapping[str, Any], losses: Losses | None, task: Task | None = None) -> Quality:
    """What is to be said of a model.

    It has learned where the 95 % interval of its AUROC lies above .5, and chance ranks so many patients as well in
    at most 2.5 % of cases (`auroc_by_chance`). Where the interval holds .5, it has not learned if that does not reach
    `USEFUL` either; else there are too few slides to tell. A loss that ends at the base rate is no learning, whatever
    the AUROC of a few slides.

    It is taken from the part with the most patients of those that have enough to tell, else from the one with the most
    (see `PARTS`).

    Args:
        metrics: of parts of the cohort, as `pipeline.statistics.metrics.evaluate` gives them, by their names.
        losses: of the fit; None where they are not known.
        task: what is predicted; of another than classes its own measure takes the place of the AUROC; None: classes.
    """
    metric = Task.metric if task is None else task.metric
    key, measure, chance, _ = metric
    of = "class frequency" if task is None or task.kind == "classification" else "what labels are alone"
    known = [part for part in PARTS if part in metrics and metrics[part][key]["value"] is not None]
    known.sort(key=lambda part: (part == "out-of-bag", -metrics[part]["patients"]))  # stable
    stuck = losses is not None and losses.at_base_rate
    if not known:
        why = f"there is no {measure} of patients that it had not seen"
        if losses is None:
            return Quality("unclear", why)
        return Quality("no" if stuck else "unclear", f"{why}, and {losses.in_words(of)}")
    told = {part: _learned(metrics[part], metric) for part in known}
    part = next((part for part in known if told[part] != "unclear"), known[0])
    learned, scored = told[part], metrics[part]
    score = scored[key]
    by_chance = scored.get("auroc_by_chance") or chance
    balanced = scored.get("balanced_accuracy") or {"value": None, "low": None, "high": None}
    found = Quality(
        learned,
        "",
        part,
        scored["slides"],
        scored["patients"],
        score["value"],
        score["low"],
        score["high"],
        scored.get("right_per_class"),
        scored.get("slides_per_class"),
        balanced["value"],
        balanced["low"],
        balanced["high"],
        measure,
        chance,
    )
    rarer = (
        "among whom its class is rarer" if metric.key == "auroc" else "whose labels lie, in the mean, away from its own"
    )
    reason = f"{found.found} {_why(learned, part, score, by_chance, metric, rarer)}"
    if stuck and losses is not None:
        reason += f"{'; but ' if learned == 'yes' else '; and '}{losses.in_words(of)}"
        learned = "unclear" if learned == "yes" else "no"
    return replace(found, learned=learned, reason=reason)


def _learned(scored: Mapping[str, Any], metric: Metric) -> Learned:
    value, low, high = (scored[metric.key][name] for name in ("value", "low", "high"))
    if low is None or high is None:
        return "unclear"
    if low > metric.chance and value > (scored.get("auroc_by_chance") or metric.chance):
        return "yes"
    return "no" if high < metric.useful else "unclear"


def _why(learned: Learned, part: str, score: Mapping[str, Any], by_chance: float, metric: Metric, rarer: str) -> str:
    chance, useful = metric.chance, metric.useful
    mirrored = 2 * chance - score["value"]
    low, high = score["low"], score["high"]
    if low is None or high is None:
        return "is of a single patient: too few to tell"
    if learned == "yes":
        return f"is above chance, {chance:g}"
    if low > chance:
        return "is what chance alone gives so few patients in more than 2.5 % of cases: too few to tell"
    if mirrored > by_chance and part in ("cross-validation", "out-of-bag"):
        return (
            f"is below chance, {chance:g}, as it may be where there is nothing to learn: a patient is judged by what "
            f"was fitted to others, {rarer}"
        )
    if mirrored > by_chance:
        return f"is below chance, {chance:g}: what goes with the labels there is not what it was fitted to"
    if high < chance:
        return f"is no better than chance: nothing as good as {useful:g} is in the interval"
    if learned == "no":
        return f"is no better than chance: the interval holds {chance:g}, and nothing as good as {useful:g}"
    return f"holds chance, {chance:g}, as well as {useful:g}: too few slides to tell"


def advice(quality: Quality, *, encoder: str, slides: int, patch_mpp: float) -> str | None:
    """What to try next with a model that has not learned, or of which that cannot be told."""
    if quality.learned == "yes":
        return None
    more = "more patients to judge it on" if quality.learned == "unclear" and quality.score is not None else ""
    tries = [more] if more else []
    if slides < FEW_PATIENTS:
        tries.append(f"more slides to learn from than {slides}")
    if encoder in ("small", "lite0") or encoder.startswith("timm:"):
        tries.append(f"an encoder of pathology in place of {encoder} (`saccade encoders` lists them)")
    if patch_mpp > 0.3:
        tries.append(f"finer patches than view.patch_mpp {patch_mpp:g}")
    tries.append("labels and slides that are checked against each other (`saccade info` shows a slide)")
    return "; ".join(tries)


def closing(
    quality: Quality,
    *,
    classes: Sequence[str],
    slides: int,
    patients: int,
    encoder: str,
    patch_mpp: float,
    model: str,
) -> list[str]:
    """The last words of a training: what was fitted to what, how good it is, whether it has learned, what to try."""
    lines = [
        f"model: {model}: {', '.join(map(apart, classes))}, fitted to {counted(slides, 'slide')} of "
        f"{counted(patients, 'patient')} on {encoder}",
        quality.in_words(),
    ]
    if quality.warning is None:
        return [*lines, f"learned: yes: {quality.reason}"]
    tried = advice(quality, encoder=encoder, slides=slides, patch_mpp=patch_mpp)
    return [*lines, f"WARNING: {quality.warning}", f"to try next: {tried}"]
