"""How good a model was found to be, and whether it has learned: what travels with it to whoever uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from stages.amounts import apart, counted

Learned = Literal["yes", "no", "unclear"]
ABOUT_READING = (
    "Intervals are about tissue that was not read: where the same model would put what it tells, had it read all of "
    "it. They say nothing of how often the model is right."
)
CHANCE = 0.5
USEFUL = 0.8
"""AUROC that a model would be of use with: an interval that holds chance and this tells nothing, for want of slides."""
UNKNOWN = "It is not known how good the model is: its checkpoint does not say on which patients it was judged."
_LIMITS = (CHANCE, USEFUL)
APART = 0.05
"""AUROC less balanced accuracy beyond which one half is not where the classes part."""
_PARTS = {
    "val": "held out for validation",
    "cross-validation": "held out in cross-validation",
    "test": "held out for the test",
    "out-of-bag": "of the training, each judged by those members only that had not seen them",
}


@dataclass(frozen=True, slots=True)
class Quality:
    """What was found about a model on patients that it had not seen.

    Attributes:
        learned: whether it tells its classes apart better than chance; "unclear" where that cannot be told.
        reason: why that is said.
        part: of the cohort that it was found on: "val", "cross-validation", "test" or "out-of-bag"; None: nothing was.
        slides, patients: how many these are.
        score, low, high: the AUROC, or what else ``measure`` names, with the ends of its 95 % interval, patients
            counting once; of more than two classes the mean over them; None where it is not known.
        right, of: of each class's slides, how many are predicted to be of it, as the most probable class, and how many
            there are; None where that is not known.
        balanced, balanced_low, balanced_high: the mean of these shares, with its interval.
        measure: what the score is.
        chance: what it is by chance.
    """

    learned: Learned
    reason: str
    part: str | None = None
    slides: int = 0
    patients: int = 0
    score: float | None = None
    low: float | None = None
    high: float | None = None
    right: Mapping[str, int] | None = None
    of: Mapping[str, int] | None = None
    balanced: float | None = None
    balanced_low: float | None = None
    balanced_high: float | None = None
    measure: str = "AUROC"
    chance: float = CHANCE

    @property
    def found(self) -> str:
        """What was seen, in a phrase."""
        if self.score is None or self.part is None:
            return "it was judged on no patients that it had not seen"
        who = f"{counted(self.patients, 'patient')} {_PARTS.get(self.part, self.part)}"
        return f"{measured_in_words(self.measure, self.score, self.low, self.high)} on {who}"

    @property
    def warning(self) -> str | None:
        """What whoever uses the model has to be told; None of one that has learned."""
        if self.learned == "yes":
            return None
        said = {
            "no": "this model has not learned to tell its classes apart"
            if self.measure == "AUROC"
            else "this model has not learned what its labels say",
            "unclear": "it cannot be told whether this model has learned anything",
        }
        return f"{said[self.learned]}: {self.reason}"

    def in_words(self) -> str:
        """How good the model is, in one sentence."""
        if self.score is None:
            return f"It is not known how good the model is: {self.reason}."
        return f"How good the model is: {self.found}; {self.chance:g} is chance.{self._called()}"

    def _called(self) -> str:
        """How often its most probable class is right: a ranking may be perfect, and its middle not at one half."""
        if self.right is None or self.of is None or self.balanced is None:
            return ""
        counts = right_in_words(self.right, self.of)
        interval = "" if self.balanced_low is None else f" [{self.balanced_low:.2f}, {self.balanced_high:.2f}]"
        told = f" Its most probable class is right for {counts} (balanced accuracy {self.balanced:.2f}{interval})."
        if self.score is not None and self.score - self.balanced > APART:
            told += (
                " It ranks slides better than its most probable class tells: calls with a stated error (`saccade "
                "conformalize`, then `run --refer`) are made at thresholds of their own."
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Of plain values.

        Raises:
            TypeError: they are not such a record's.
        """
        return cls(**{"score" if name == "auroc" else name: value for name, value in told.items()})


def measured_in_words(measure: str, score: float, low: float | None, high: float | None) -> str:
    """An AUROC, or another measure, with the ends of its interval, where there is one."""
    ends = [_told(end) for end in (low, high) if end is not None]
    return f"{measure} {_told(score)}" + (f" [{', '.join(ends)}]" if ends else "")


def right_in_words(right: Mapping[str, int], of: Mapping[str, int]) -> str:
    """Of how many slides of each class the most probable class is right."""
    return ", ".join(f"{right[name]} of {count} {apart(name)}" for name, count in of.items() if count)


def _told(value: float) -> str:
    """In two digits, or as many as keep it on its side of what a verdict compares it with."""
    for digits in range(2, 17):
        text = f"{value:.{digits}f}"
        if all((float(text) > limit, float(text) < limit) == (value > limit, value < limit) for limit in _LIMITS):
            break
    return text
