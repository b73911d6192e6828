"""How sets of classes are made at a stated error, and what is stated of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.model.header import Knows
from pipeline.model.label_calibration import LabelCalibration
from pipeline.model.spec import task_of
from pipeline.refer.label_set import BETWEEN, OWN, REFER, UNLIKE, UNTOLD, LabelSet, percent
from pipeline.task.task import refuse_untold
from stages.amounts import as_given, counted
from stages.appearance import Appearance
from stages.prediction.conformal import ERRORS, WHOLE, Floats, least_error, patients_needed

NO_END = 2**31
"""The budget of reading on until it is sure enough."""


@dataclass(frozen=True, slots=True, eq=False)
class Referral:
    """How a run makes sets: thresholds of its own number of patches, from the model's calibration.

    Attributes:
        error, by_class: see `LabelSet`.
        budgets: of the calibration, those that stand for the run's patches.
        thresholds: (C,), the score ``1 - p`` up to which a class is in the set.
        calibration: the model's.
        own: fingerprints of the slides that the model was trained or calibrated on.
    """

    error: float
    by_class: bool
    budgets: tuple[int, ...]
    thresholds: Floats
    calibration: LabelCalibration
    own: frozenset[str] = frozenset()

    def of(self, probabilities: Mapping[str, float], *, fingerprint: str, doubt: str | None = None) -> LabelSet:
        """The set of a prediction by its classes' probabilities.

        A slide that looks unlike those of the calibration is referred; of one that the model or the calibration was
        fitted to nothing is stated.

        Args:
            probabilities: by class.
            fingerprint: of the slide.
            doubt: what `doubt` says of it.
        """
        found = self._of(probabilities)
        if doubt is not None:
            return replace(found, call=REFER, why=doubt)
        if fingerprint in self.own:
            return replace(found, why=OWN, error=None)
        return found

    def _of(self, probabilities: Mapping[str, float]) -> LabelSet:
        found = self.calibration.conformal.predict_set(
            list(probabilities.values()), self.error, budgets=self.budgets, by_class=self.by_class
        )
        classes = tuple(name for name, chosen in zip(probabilities, found, strict=True) if chosen)
        if len(classes) == 1:
            return LabelSet(classes, classes[0], "", self.error, self.by_class)
        if classes:
            why = f"{'both' if len(classes) == 2 else len(classes)} are possible: {BETWEEN.join(classes)}"
        else:
            why = f"no class is as probable as {self._calibrated_by(tuple(probabilities))}"
        return LabelSet(classes, REFER, why, self.error, self.by_class)

    def _calibrated_by(self, classes: Sequence[str]) -> str:
        """What a class has to be as probable as, to be in a set."""
        whose = f"for {percent(1 - self.error)} of the calibration's patients"
        if not self.by_class:
            return f"the label was {whose}"
        conformal = self.calibration.conformal
        each = ", ".join(f"{name!r} ({conformal.patients_of(i)})" for i, name in enumerate(classes))
        return f"it was itself {whose} of that class: {each}"

    def doubt(self, looks: Appearance | None) -> str | None:
        """Why the stated error may not hold for a slide that looks so, or None; ``looks`` None: it does not show."""
        known = self.calibration.appearance
        if known is not None and looks is None:
            return f"it is a bag, which does not show whether it looks like the calibration's slides: {UNTOLD}"
        score = None if known is None or looks is None else known.compare(looks).score
        if score is None or score <= 1:
            return None
        return f"{UNLIKE} (score {score:.1f}; the limit is 1): {UNTOLD}"

    def curve(self) -> list[dict[str, float]]:
        """The abstention curve of the calibration's patients, at the stated error and others, as far as the patients
        are enough when one of them is left out."""
        conformal = self.calibration.conformal
        labels = range(self.thresholds.size) if self.by_class else [None]
        fewest = min(conformal.patients_of(label) for label in labels) - 1
        errors = sorted(one for one in {self.error, *ERRORS} if fewest >= patients_needed(one))
        return conformal.abstention(errors, budgets=self.budgets, by_class=self.by_class)

    def in_words(self) -> str:
        """What is stated, in one sentence: about the label, not about reading."""
        whose = "slides of each class" if self.by_class else "slides"
        sentence = (
            f"Calls are about the label, not about reading: for at most {percent(self.error)} of {whose} of patients "
            "like those of the calibration, the true class is missing from the listed classes. One class listed: it is "
            "called. Several or none: the slide is referred"
        ) + ("" if self.calibration.appearance is None else ", as is one that looks unlike the calibration's")
        doubt = "" if self.calibration.doubt is None else f"; {self.calibration.doubt}"
        return f"{sentence}{doubt}."

    def to_json(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """For run.json."""
        conformal = self.calibration.conformal
        return {
            "stated_error": self.error,
            "by_class": self.by_class,
            "about": self.in_words(),
            "budgets": list(self.budgets),
            "thresholds": dict(zip(classes, self.thresholds.tolist(), strict=True)),
            "calibration": {
                "source": self.calibration.source,
                "doubt": self.calibration.doubt,
                "scheme": self.calibration.scheme,
                "slides": len(conformal.labels),
                "patients": conformal.patients_of(),
                "patients_of": {name: conformal.patients_of(i) for i, name in enumerate(classes)},
                "least_error": least_error(conformal.patients_of()),
            },
            "abstention": self.curve(),
        }


def referral(
    model: Knows,
    error: float,
    *,
    by_class: bool = False,
    samples: int | None = None,
    reads_on: bool = False,
    scheme: str | None = None,
    prior: bool = False,
) -> Referral:
    """How a model makes sets at a stated error, when it predicts with these settings.

    Where it ``reads_on`` until it is sure enough, up to ``samples`` or to all, the number of patches is not known
    before: the thresholds are then the widest of all budgets that it may stop at, which is no theorem, and a doubt of
    the calibration; so are those of a number that was not calibrated, the wider of its neighbours'.

    Raises:
        UsageError: the model has no calibration, or one that cannot be the ground for this error or these settings.
    """
    if not 0 < error < 1:
        raise UsageError(f"the stated error must lie between 0 and 1, found {as_given(error)}; such as 0.1")
    spec, known = model.spec, model.label_calibration
    refuse_untold(task_of(spec), "--refer")
    check_names(spec.classes)
    if model.several:
        raise UsageError("--refer: calls are calibrated of single models: give one of them, or leave --refer out")
    if known is None:
        raise UsageError(
            "the model does not know how often its calls are right: `saccade conformalize MODEL TABLE --out MODEL2`, "
            "with labelled slides of patients that it was not trained on, makes one that does"
        )
    if scheme is not None and scheme != known.scheme:
        raise UsageError(f"--refer was calibrated for {known.scheme} draws, found --scheme {scheme}: leave that out")
    if prior:
        raise UsageError("--refer was calibrated for draws by the model's own attention: leave --prior out, or --refer")
    conformal = known.conformal
    for who, count in _counts(known, spec.classes, by_class):
        if count < patients_needed(error):
            remedy = f"state {rounded_up(least_error(count))} or more, or " if count else ""
            raise UsageError(
                f"a stated error of {as_given(error)} needs {counted(patients_needed(error), 'patient')}{who} to "
                f"calibrate on, the model has {count}: {remedy}`saccade conformalize` with more patients"
            )
    asked = samples or spec.samples
    budgets = conformal.at(min(spec.samples, asked), samples or NO_END) if reads_on else conformal.at(asked)
    thresholds = conformal.thresholds(error, budgets=budgets, by_class=by_class)
    assert np.isfinite(thresholds).all()
    own = frozenset(model.trained_on) | frozenset(known.slides)
    doubts = [one for one in (known.doubt, _doubt_of(budgets, asked, reads_on=reads_on)) if one is not None]
    known = replace(known, doubt="; ".join(doubts) or None)
    return Referral(error, by_class, budgets, thresholds, known, own)


def _doubt_of(budgets: tuple[int, ...], asked: int, *, reads_on: bool) -> str | None:
    """Why the stated error need not hold for what is drawn, where that is not what was calibrated."""
    if budgets == (WHOLE,) or (budgets == (asked,) and not reads_on):
        return None
    named = [f"{n:,}" for n in budgets]
    drawn = " and ".join(named) if len(named) < 3 else f"{named[0]} to {named[-1]}"
    if reads_on:
        return (
            f"each slide is read on until it is sure enough, so how many patches that takes is not fixed: calls go by "
            f"the widest thresholds of all that were calibrated for that, {drawn}, and that the stated error then "
            "holds is no theorem"
        )
    return (
        f"calls were not calibrated for {asked:,} patches and go by {drawn}: that the stated error then holds is no "
        f"theorem; `saccade conformalize --samples {asked}` makes it one"
    )


def check_names(classes: Sequence[str]) -> None:
    """Refuse names of classes that calls and sets could not be told from.

    Raises:
        UsageError: which.
    """
    if REFER in classes:
        raise UsageError(f"a class is called {REFER!r}, which is what is said of slides that are not called: rename it")
    for name in classes:
        if BETWEEN in name:
            raise UsageError(f"the class {name!r} has {BETWEEN!r} in it, which parts the classes of a set: rename it")


def rounded_up(error: float) -> str:
    """An error to two digits, none smaller: one that may be stated."""
    digits = 1 - math.floor(math.log10(error))
    return f"{math.ceil(error * 10**digits - 1e-9) / 10**digits:g}"


def _counts(known: LabelCalibration, classes: tuple[str, ...], by_class: bool) -> list[tuple[str, int]]:
    """How many patients thresholds go by, and whose they are."""
    conformal = known.conformal
    if not by_class:
        return [("", conformal.patients_of())]
    return [(f" of {name!r}", conformal.patients_of(i)) for i, name in enumerate(classes)]
