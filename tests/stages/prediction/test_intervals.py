"""Half-widths from what draws tell and from how a cohort's draws fell."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t

from stages.prediction.intervals import FAR, UNFITTED, Calibration, Evidence, fit_calibration, joined


def evidence(draws: int, *, freedom: float, seed: int) -> Evidence:
    """Draws of two classes whose true variance is ``unit``, as far as ``freedom`` patches can tell it."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, draws, int(freedom), generator=generator, dtype=torch.float64)
    told = noise.square().mean(2).unsqueeze(-1).expand(-1, -1, 2)
    unit = torch.full((draws, 1), 0.25, dtype=torch.float64)
    free = torch.full_like(unit, freedom)
    return Evidence(torch.zeros(draws, 2), unit, free, *told, freedom_all=free)


@pytest.mark.parametrize("confidence", [0.5, 0.95, *(1 - 0.05 / looks for looks in (2, 5, 20))])
@pytest.mark.parametrize("worth", [0.1, 4.0, 1125.0])
def test_the_half_width_uses_students_t(worth: float, confidence: float) -> None:
    """The quantile of `scipy.stats.t`, which takes half a second to import, to 1e-12; from no freedom to much."""
    freedom = torch.tensor([0.0, 1.0, 2.0, 7.0, 31.0, 255.0, 4095.0, 1e6], dtype=torch.float64)
    one = torch.ones(len(freedom), 1, dtype=torch.float64)
    told = Evidence(one, one, freedom[:, None], one, one, one, freedom[:, None] + 1)
    rule = Calibration(worth=worth)
    found = rule.half_width(told, 1, confidence=confidence) / rule.variance(told).sqrt()
    expected = t.ppf(0.5 + confidence / 2, freedom.numpy() + worth)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_a_confidence_is_of_all_classes_jointly(classes: int) -> None:
    """Each of more than two classes misses in its share of the five per cent; two miss together."""
    same = torch.ones(1, classes, dtype=torch.float64)
    parts = same, same[:, :1], 7 * same[:, :1], same, same, same, 7 * same[:, :1]
    told = Evidence(*parts, statements=classes if classes > 2 else 1)
    shared = t.ppf(1 - 0.025 / (classes if classes > 2 else 1), 7 + Calibration().worth)
    torch.testing.assert_close(Calibration().half_width(told, 8), shared * Calibration().variance(told).sqrt())


@pytest.mark.parametrize(("drawn", "freedom"), [(2, 1), (4, 3), (8, 5), (20, 5)])
def test_without_a_cohort_draws_are_worth_no_more_than_they_are(drawn: int, freedom: int) -> None:
    """Two cells left to chance, the others for sure: what is added to the one degree of freedom is no more than those,
    nor than `Calibration.worth`."""
    one = torch.ones(1, 1, dtype=torch.float64)
    told = Evidence(one, one, one, one, one, one, (drawn - 1) * one)
    deviation = float(UNFITTED.variance(told).sqrt())
    assert float(UNFITTED.half_width(told, drawn)) / deviation == pytest.approx(t.ppf(0.975, freedom))
    assert float(Calibration().half_width(told, drawn)) / deviation == pytest.approx(t.ppf(0.975, 5))


def test_predicting_loads_no_statistics() -> None:
    code = "import sys, stages.prediction.predict; print({'scipy.stats', 'scipy.optimize'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_fitted_rule_covers_fresh_draws_of_the_same_kind() -> None:
    """Draws that fall twice as far as they say: the fit learns it, the default does not."""
    generator = torch.Generator().manual_seed(0)

    def cohort(first: int) -> list[tuple[Evidence, torch.Tensor]]:
        return [
            (
                evidence(100, freedom=7, seed=first + i),
                torch.randn(100, 2, generator=generator, dtype=torch.float64),  # a deviation of 1 where told is 0.5
            )
            for i in range(20)
        ]

    fitted = fit_calibration({16: cohort(0)})
    assert fitted is not None
    fresh = cohort(100)
    together, errors = joined([e for e, _ in fresh]), torch.cat([x for _, x in fresh])
    held, default = (
        float((errors.abs() <= rule.half_width(together, 16))[:, 1].double().mean()) for rule in (fitted, Calibration())
    )
    # four standard errors, of the fresh draws and of those fitted to
    assert abs(held - 0.95) < 4 * math.sqrt(2 * 0.95 * 0.05 / 2000)
    assert default < 0.85


def test_no_draws_tell_nothing() -> None:
    assert fit_calibration({}) is None


def test_a_fitted_rule_holds_all_classes_jointly() -> None:
    """Five classes whose errors have nothing to do with each other: 95 in 100 of the draws it was fitted to hold."""
    generator = torch.Generator().manual_seed(0)

    def slide(seed: int) -> tuple[Evidence, torch.Tensor]:
        one = evidence(100, freedom=7, seed=seed)
        wide = {name: getattr(one, name)[:, :1].expand(-1, 5) for name in ("by_design", "among_random", "among_all")}
        return replace(one, statistics=torch.zeros(100, 5), statements=5, **wide), torch.randn(
            100, 5, generator=generator
        ).double()

    slides = [slide(seed) for seed in range(10)]
    rule = fit_calibration({16: slides})
    assert rule is not None
    held = torch.cat([x.abs() <= rule.half_width(e, 16) for e, x in slides])
    assert int(held.all(1).sum()) == 950
    assert float(held.double().mean()) > 0.98


def test_patches_that_are_all_one_to_the_model_do_not_spoil_a_cohorts_rule() -> None:
    """On blank slides what is left is rounding, however many times the stated variance of nothing it is."""
    torch.manual_seed(0)
    slides = [(evidence(100, freedom=7, seed=i), torch.randn(100, 2, dtype=torch.float64)) for i in range(8)]
    one = evidence(100, freedom=7, seed=9)
    flat = {name: torch.zeros_like(getattr(one, name)) for name in ("by_design", "among_random", "among_all")}
    blank = (replace(one, **flat), torch.full((100, 2), 1e-7, dtype=torch.float64))
    assert fit_calibration({16: [*slides, blank, blank]}) == fit_calibration({16: slides})
    assert fit_calibration({16: [blank]}) is None


def test_far_in_the_tail_the_farther_factor_counts() -> None:
    """At 95 % the near one, at `FAR` and beyond the farther one, between them between; without it the near one."""
    told, rule = evidence(1, freedom=7, seed=0), Calibration(factors=(1.2,), far=(1.8,))

    def times(rule: Calibration, confidence: float) -> float:
        wide, plain = (one.half_width(told, 8, confidence=confidence) for one in (rule, Calibration()))
        return float((wide / plain)[0, 0])

    assert [times(rule, c) for c in (0.9, 0.95, FAR, 0.9999)] == pytest.approx([1.2, 1.2, 1.8, 1.8])
    assert 1.3 < times(rule, 0.985) < 1.7
    assert times(replace(rule, far=()), FAR) == pytest.approx(1.2)


def test_the_farther_factor_is_fitted_to_the_tail() -> None:
    """One draw in fifty falls eight deviations away: next to nothing at 95 %, and held at `FAR`."""
    generator = torch.Generator().manual_seed(0)
    told = evidence(4000, freedom=7, seed=0)
    errors = torch.randn(4000, 2, generator=generator, dtype=torch.float64) / 2
    errors[::50] = 4.0
    fitted = fit_calibration({16: [(told, errors)]})
    assert fitted is not None
    away = errors.abs()[:, 1]
    missed = [
        float((away > rule.half_width(told, 16, confidence=FAR)[:, 1]).double().mean())
        for rule in (fitted, replace(fitted, far=()))
    ]
    assert missed[0] <= 1 - FAR + 1e-3 < missed[1]
