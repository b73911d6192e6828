"""A cohort whose hazard is known: by the share of carcinoma in a slide, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.survival import GAIN, LOST, MOST, TRUTH, draw_patient, judged, mean_in_words

KINDS = (np.arange(0, 50), np.arange(50, 90))
PATIENTS = [draw_patient(f"p{i}", KINDS, [0, i]) for i in range(120)]


def test_a_hazard_is_that_of_the_carcinomas_share() -> None:
    for one in PATIENTS:
        tissue, carcinoma = one.cells >= 0, one.cells >= 50
        share = carcinoma.sum() / tissue.sum()
        assert one.hazard == pytest.approx(GAIN * (share - MOST / 2) / (MOST / 12**0.5))
        assert 0 < share <= MOST + 1 / tissue.sum()
    assert np.std([one.hazard for one in PATIENTS]) == pytest.approx(GAIN, rel=0.15)


def test_patients_have_the_event_at_that_rate_and_are_lost_at_one_that_knows_nothing_of_it() -> None:
    hazards, times = np.array([(one.hazard, one.time) for one in PATIENTS]).T
    events = sum(one.event for one in PATIENTS)
    # of a Poisson process the events are as many as rates times the time at risk, and so are those lost
    expected = (np.exp(hazards) * times).sum()
    assert abs(events - expected) < 3 * expected**0.5
    lost = LOST * times.sum()
    assert abs(len(PATIENTS) - events - lost) < 3 * lost**0.5


def test_the_true_hazard_ranks_best_and_differences_are_the_models() -> None:
    random = np.random.default_rng(0)
    truth = [one.hazard for one in PATIENTS]
    ways = {"model": [h + random.normal() for h in truth], "guess": random.normal(size=120).tolist(), TRUTH: truth}
    found = judged(ways, PATIENTS)
    c = {way: one["c_index"]["value"] for way, one in found.items()}
    assert 0.7 < c[TRUTH] < 0.9
    assert c["guess"] < c["model"] < c[TRUTH]
    assert found["model"]["model_minus"] is None
    assert found["guess"]["model_minus"]["value"] == pytest.approx(c["model"] - c["guess"])
    assert found["guess"]["model_minus"]["low"] > 0
    later = [replace(one, name=f"{one.name} again") for one in PATIENTS]
    assert judged(ways, later)["guess"] == found["guess"]


def test_seeds_have_a_t_interval() -> None:
    assert mean_in_words(np.array([0.01, 0.03])) == "+0.020 [-0.107, +0.147]"
    assert mean_in_words(np.array([0.01])) == "+0.010"
