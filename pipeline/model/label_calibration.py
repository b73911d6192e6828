"""What sets of classes are calibrated on, as it travels in a checkpoint: scores, and which slides they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from stages.amounts import apart, counted
from stages.appearance import VERSION, CohortAppearance, Distribution
from stages.prediction.conformal import Conformal, conformalize


@dataclass(frozen=True, slots=True, eq=False)
class LabelCalibration:
    """Labelled slides of patients that a model was not trained on, and how its predictions of them fell.

    Attributes:
        conformal: the scores. Of patients it says only which slides are of one, not who they are.
        scheme: how patches were drawn.
        source: where the slides are from, in a phrase.
        doubt: why the stated error may not hold, or None.
        slides: fingerprints of the slides.
        key: what it follows from, so that the same is not done again.
        appearance: how the slides look; None: not known.
    """

    conformal: Conformal
    scheme: str
    source: str
    doubt: str | None
    slides: frozenset[str]
    key: str
    appearance: CohortAppearance | None = None

    def in_words(self, classes: Sequence[str]) -> str:
        """How many patients of each class there are, and from where."""
        of = ", ".join(f"{self.conformal.patients_of(i)} {apart(name)}" for i, name in enumerate(classes))
        slides, patients = len(self.conformal.labels), self.conformal.patients_of()
        return f"{counted(slides, 'slide')} of {counted(patients, 'patient')} ({of}), {self.source}"

    def to_json(self) -> dict[str, Any]:
        """As plain values; scores to six digits."""
        found = self.conformal
        return {
            "scheme": self.scheme,
            "source": self.source,
            "doubt": self.doubt,
            "slides": sorted(self.slides),
            "key": self.key,
            "appearance": appearance_to_json(self.appearance),
            "labels": found.labels.tolist(),
            "patients": found.patients.tolist(),
            "scores": {
                str(n): [[[float(f"{x:.6g}") for x in draw] for draw in slide] for slide in scores.tolist()]
                for n, scores in zip(found.budgets, found.scores, strict=True)
            },
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Of plain values.

        Raises:
            KeyError, ValueError: they are not such a record's.
        """
        scores = {int(n): np.array(values) for n, values in told["scores"].items()}
        return cls(
            conformal=conformalize(scores, told["labels"], told["patients"]),
            scheme=told["scheme"],
            source=told["source"],
            doubt=told["doubt"],
            slides=frozenset(told["slides"]),
            key=told["key"],
            appearance=appearance_from_json(told["appearance"]),
        )


def appearance_to_json(found: CohortAppearance | None) -> dict[str, Any] | None:
    """How slides look, as plain values."""
    return None if found is None else {"version": VERSION, **asdict(found)}


def appearance_from_json(told: Mapping[str, Any] | None) -> CohortAppearance | None:
    """Of plain values; None of those that were made before there was any, or of numbers that mean something else."""
    if told is None or told.get("version") != VERSION:
        return None
    known = {
        field: Distribution(tuple(one["centre"]), tuple(map(tuple, one["covariance"])), one["limit"])
        for field, one in told["known"].items()
    }
    return CohortAppearance(told["counts"], known)
