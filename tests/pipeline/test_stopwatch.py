"""What stages take is told by stage, each second once."""

from __future__ import annotations

import time

import pytest

from pipeline.stopwatch import measuring, stage


def test_what_a_stage_within_another_takes_is_told_once() -> None:
    with measuring() as spent, stage("outer"):
        time.sleep(0.02)
        for _ in range(2):
            with stage("inner"):
                time.sleep(0.1)
    assert [*spent] == ["inner", "outer"]
    assert spent["inner"]["seconds"] == pytest.approx(0.2, abs=0.08)
    assert spent["outer"]["seconds"] == pytest.approx(0.02, abs=0.05)


def fail() -> None:
    time.sleep(0.05)
    raise ValueError("no")


def test_a_stage_that_fails_is_told_too_and_the_one_after_it_is_its_own() -> None:
    with measuring() as spent:
        with pytest.raises(ValueError, match="no"), stage("failing"):
            fail()
        with stage("next"):
            pass
    assert spent["failing"]["seconds"] >= 0.05
    assert spent["next"]["seconds"] < 0.05
