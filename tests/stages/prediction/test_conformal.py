"""Label sets hold the label as often as is stated: exactly, by letting every patient be the new one in turn."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.prediction.conformal import (
    WHOLE,
    Conformal,
    conformalize,
    least_error,
    patients_needed,
    scores_of,
    threshold,
)

Floats = NDArray[np.float64]


def calibrated(scores: Floats, labels: list[int], patients: list[int], *, budget: int = 8) -> Conformal:
    return conformalize({budget: scores}, labels, patients)


def held_of_the_new(scores: Floats, patients: NDArray[np.int64], error: float) -> float:
    """Coverage of a new patient's slides, each patient being the new one in turn, whose slides count as one."""
    held = []
    for patient in np.unique(patients):
        new = patients == patient
        held.append(np.mean(scores[new] <= threshold(scores[~new], patients[~new], error)))
    return float(np.mean(held))


@pytest.mark.parametrize("patients", [9, 10, 19, 23, 40])
@pytest.mark.parametrize("error", [0.1, 0.2, 0.33])
def test_one_slide_of_each_patient_is_covered_exactly(patients: int, error: float) -> None:
    """In ``ceil((n + 1) (1 - error)) / (n + 1)``, whatever the scores are."""
    scores = np.random.default_rng(patients).standard_cauchy(patients + 1)
    wanted = math.ceil((patients + 1) * (1 - Fraction(str(error)))) / (patients + 1)
    assert held_of_the_new(scores, np.arange(patients + 1), error) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_patients_of_many_slides_and_draws_count_once(seed: int) -> None:
    """Coverage of a new patient is within its bounds, where slides that count alike fall short of it."""
    rng = np.random.default_rng(seed)
    counts = np.where(np.arange(20) < 2, 60, rng.integers(1, 4, 20))  # two patients bring most slides, all of them easy
    patients = np.repeat(np.arange(20), counts)
    scores = rng.random(len(patients)) * 0.1 + np.where(patients < 2, 0, rng.random(20)[patients])
    held = held_of_the_new(scores, patients, 0.2)
    assert 0.8 - 1e-12 <= held <= 0.8 + 2 / 20
    alike = np.mean(
        [
            np.mean(scores[patients == p] <= threshold(scores[patients != p], np.arange((patients != p).sum()), 0.2))
            for p in range(20)
        ]
    )
    assert alike < 0.8 - 0.1


def test_by_class_each_class_is_covered_where_one_threshold_spares_the_common_one() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [400, 100])
    own = np.where(labels == 0, rng.random(500) * 0.2, rng.random(500))  # the rare class is the hard one
    scores = np.stack([np.where(labels == 0, own, 1 - own), np.where(labels == 1, own, 1 - own)], 1)[:, None]
    half = np.random.default_rng(1).permutation(500)
    fit, new = half[:250], half[250:]
    conformal = calibrated(scores[fit], labels[fit].tolist(), fit.tolist())
    for by_class, low, high in ((False, 0.2, 0.7), (True, 0.82, 0.97)):
        sets = conformal.predict_set(1 - scores[new, 0], 0.1, budgets=(8,), by_class=by_class)
        held = sets[np.arange(250), labels[new]][labels[new] == 1].mean()
        assert low < held < high, by_class


@pytest.mark.parametrize("error", [0.5, 0.34, 0.1, 0.07, 0.01])
def test_too_few_patients_leave_every_class_in_the_set(error: float) -> None:
    needed = patients_needed(error)
    assert least_error(needed) <= error < least_error(needed - 1)
    scores = np.linspace(0.1, 0.4, needed)
    assert math.isfinite(threshold(scores, np.arange(needed), error))
    assert threshold(scores[1:], np.arange(needed - 1), error) == math.inf
    few = calibrated(np.ones((1, 1, 3)) / 3, [0], [0])
    assert few.predict_set([1.0, 0.0, 0.0], 0.1, budgets=(8,)).all()


def test_a_number_of_patches_between_two_budgets_has_the_wider_threshold() -> None:
    scores = {n: np.full((3, 2, 2), value) for n, value in ((4, 0.3), (8, 0.5), (16, 0.2), (32, 0.1))}
    conformal = conformalize(scores, [0, 1, 0], ["a", "b", "c"])
    assert [conformal.at(n) for n in (2, 4, 5, 8, 20, 32, 99)] == [(4,), (4,), (4, 8), (8,), (16, 32), (32,), (32,)]
    assert conformal.at(8, most=20) == (8, 16, 32)
    assert conformal.at(16, most=10**9) == (16, 32)
    for n, wanted in ((5, 0.5), (12, 0.5), (20, 0.2)):
        assert conformal.thresholds(0.4, budgets=conformal.at(n)).tolist() == [wanted] * 2
    assert conformalize({WHOLE: scores[4]}, [0, 1, 0], [0, 1, 2]).at(24) == (WHOLE,)


def test_a_score_keeps_its_digits_next_to_0() -> None:
    assert scores_of([1e-30, 1 - 1e-30]).tolist() == [1.0, 1e-30]


def test_the_abstention_curve_judges_each_patient_by_the_others() -> None:
    """Against the plain definition, patient by patient."""
    rng = np.random.default_rng(3)
    labels, patients = rng.integers(0, 2, 30), rng.integers(0, 14, 30)
    p = rng.beta(2, 1, (30, 4))
    p = np.where(labels[:, None] == 1, p, 1 - p)
    scores = scores_of(np.stack([1 - p, p], 2))
    conformal = calibrated(scores, labels.tolist(), patients.tolist())
    told = []
    for patient in np.unique(patients):
        out = patients == patient
        others = calibrated(scores[~out], labels[~out].tolist(), patients[~out].tolist())
        sets = others.predict_set(1 - scores[out], 0.2, budgets=(8,))
        count, held = sets.sum(-1), np.take_along_axis(sets, labels[out][:, None, None].repeat(4, 1), 2)[..., 0]
        told.append([x.mean() for x in (count != 1, count > 1, count == 0, (count == 1) & ~held, held)])
    referred, several, none, wrong, held_ = np.mean(told, 0)
    (row,) = conformal.abstention([0.2], budgets=(8,))
    assert row == pytest.approx(
        {
            "stated_error": 0.2,
            "referred": referred,
            "several": several,
            "none": none,
            "wrong": wrong,
            "coverage": held_,
            "error_of_called": wrong / (1 - referred),
        }
    )


@pytest.mark.parametrize("error", [0, 1, -0.1, 1.5, math.nan])
def test_an_error_that_is_no_share_is_refused(error: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibrated(np.full((2, 1, 2), 0.5), [0, 1], [0, 1]).thresholds(error, budgets=(8,))


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        (np.full((2, 1, 2), 0.5), [0], "expected scores"),
        (np.full((2, 1, 2), 0.5), [0, 2], "labels from 0 to 2"),
        (np.full((2, 1, 2), np.nan), [0, 1], "numbers in"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores: Floats, labels: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibrated(scores, labels, labels)


def test_what_a_draw_leaves_to_chance_must_be_in_the_scores() -> None:
    """Calibrated on draws 90 % sets hold the label of drawn slides; on what whole slides say, of far fewer."""
    rng = np.random.default_rng(0)
    whole = np.repeat(rng.normal(2, 1, 4000)[:, None], 4, 1)  # log-odds of the label, and four draws of them
    drawn = whole + rng.normal(0, 2, whole.shape)
    scores = {n: 1 / (1 + np.exp(np.stack([x, -x], 2))) for n, x in ((8, drawn), (WHOLE, whole))}
    fit, new = slice(2000), slice(2000, None)
    held = {}
    for n, its in scores.items():
        conformal = conformalize({n: its[fit]}, [0] * 2000, list(range(2000)))
        held[n] = conformal.predict_set(1 - scores[8][new], 0.1, budgets=(n,))[..., 0].mean()
    assert held[8] == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 2000 * 2))
    assert held[WHOLE] < 0.75
