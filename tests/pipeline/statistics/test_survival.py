"""The C-index counts ties as the field's libraries do, and says what it cannot use."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.statistics.survival import evaluate_survival


def cohort(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """With many ties of times and of risks."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(1, 6, n).astype(float),
        rng.integers(0, 2, n),
        rng.integers(0, 4, n) / 2,
        [f"P{i}" for i in range(n)],
    )


def test_it_is_the_share_of_comparable_pairs_in_order() -> None:
    times, events, risks, people = cohort(30)
    pairs = ordered = 0.0
    for i in range(30):
        for j in range(30):
            first = times[i] < times[j] or (times[i] == times[j] and not events[j])
            if events[i] and first and i != j:
                pairs += 1
                ordered += 1.0 if risks[i] > risks[j] else 0.5 if risks[i] == risks[j] else 0.0
    found = evaluate_survival(times, events, risks, people)
    assert found["pairs"] == pairs
    assert found["c_index"]["value"] == pytest.approx(ordered / pairs)
    assert found["events"] == events.sum()


@pytest.mark.parametrize("seed", range(20))
def test_ties_count_as_in_lifelines_and_scikit_survival(seed: int) -> None:
    """Both leave out two events at one time, compare an event with a censoring at its time, and count equal risks
    half."""
    lifelines = pytest.importorskip("lifelines.utils")
    sksurv = pytest.importorskip("sksurv.metrics")
    times, events, risks, people = cohort(12, seed)
    value = evaluate_survival(times, events, risks, people)["c_index"]["value"]
    assert value == pytest.approx(lifelines.concordance_index(times, -risks, events))
    assert value == pytest.approx(sksurv.concordance_index_censored(events == 1, times, risks)[0])


def test_risks_have_no_size() -> None:
    times, events, risks, people = cohort(20)
    small = evaluate_survival(times, events, 1e-12 * risks, people)
    assert small["c_index"] == evaluate_survival(times, events, risks, people)["c_index"]


def test_a_patient_counts_once_with_the_mean_of_his_slides_risks() -> None:
    times, events, risks, people = cohort(20)
    apart = np.random.default_rng(1).normal(size=20)
    both = evaluate_survival(
        np.tile(times, 2), np.tile(events, 2), np.concatenate([risks + apart, risks - apart]), people * 2
    )
    once = evaluate_survival(times, events, risks, people)
    assert both == {**once, "slides": 40}


def test_groups_are_scored_by_their_own_pairs_and_one_without_any_has_none() -> None:
    times, events, risks, people = cohort(24)
    events[:8] = 0
    sites = ["N"] * 8 + ["S"] * 16
    found = evaluate_survival(times, events, risks, people, sites=sites, folds=[str(i % 2) for i in range(24)])
    assert found["sites"]["N"]["c_index"] == {"value": None, "low": None, "high": None}
    alone = evaluate_survival(times[8:], events[8:], risks[8:], people[8:])
    assert found["sites"]["S"] == {key: one for key, one in alone.items() if key not in ("curves", "patients_needed")}
    assert set(found["folds"]) == {"0", "1"}
    json.dumps(found, allow_nan=False)


def test_a_perfect_order_has_an_interval_that_says_how_little_four_patients_tell() -> None:
    found = evaluate_survival([1, 2, 3, 4], [1, 1, 1, 0], [4, 3, 2, 1], list("abcd"))["c_index"]
    assert found["value"] == found["high"] == 1
    assert found["low"] < 0.75


@pytest.mark.parametrize(
    ("times", "events", "risks", "patients", "message"),
    [
        ([-1, 2], [1, 1], [1, 2], ["a", "b"], "expected none below 0, found -1 of patient 'a'"),
        ([1, 2], [1, 2], [1, 2], ["a", "b"], r"expected 1 \(the event\) or 0 \(censored\), found 2 of patient 'b'"),
        ([1, np.nan], [1, 0], [1, 2], ["a", "b"], "times: expected finite numbers, found nan in row 1"),
        ([1, 2], [1, 0], [1, np.inf], ["a", "b"], "risks: expected finite numbers, found inf in row 1"),
        ([1, 2], [1, 0], [1, 2], ["a", "a"], "patient 'a' has slides with different times or events"),
        ([1, 2], [1, 0], [1], ["a", "b"], r"risks: expected shape \(2,\), found \(1,\)"),
        (["x", 2], [1, 0], [1, 2], ["a", "b"], "times: expected numbers"),
        ([], [], [], [], "one at least"),
    ],
)
def test_what_cannot_be_scored_is_refused(times, events, risks, patients, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_survival(times, events, risks, patients)


def test_within_folds_only_pairs_of_one_fold_count_whatever_scale_each_fold_has() -> None:
    times, events, risks, people = cohort(40)
    folds = [f"fold-{i % 4}" for i in range(40)]
    apart = np.array([100.0 * int(fold[-1]) for fold in folds])
    found = evaluate_survival(times, events, risks + apart, people, folds=folds)
    pairs = ordered = 0.0
    for fold in range(4):
        one = evaluate_survival(times[fold::4], events[fold::4], risks[fold::4], people[fold::4])
        pairs += one["pairs"]
        ordered += one["pairs"] * (one["c_index"]["value"] or 0.0)
    within = found["c_index_within_folds"]
    assert within["value"] == pytest.approx(ordered / pairs)
    assert within["value"] != pytest.approx(found["c_index"]["value"])
    assert within["low"] < within["value"] < within["high"]
    assert "c_index_within_folds" not in evaluate_survival(times, events, risks, people)
