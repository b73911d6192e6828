"""Half-widths from what draws tell and from how a cohort's draws fell."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import t

from stages.prediction.intervals import Calibration, Evidence, fit_calibration, joined


def evidence(draws: int, *, freedom: float, seed: int) -> Evidence:
    """Draws of two classes whose true variance is ``unit``, as far as ``freedom`` patches can tell it."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, draws, int(freedom), generator=generator, dtype=torch.float64)
    told = noise.square().mean(2).unsqueeze(-1).expand(-1, -1, 2)
    unit = torch.full((draws, 1), 0.25, dtype=torch.float64)
    return Evidence(torch.zeros(draws, 2), unit, torch.full_like(unit, freedom), *told)


@pytest.mark.parametrize("confidence", [0.5, 0.95, *(1 - 0.05 / looks for looks in (2, 5, 20))])
@pytest.mark.parametrize("worth", [0.1, 4.0, 1125.0])
def test_the_half_width_uses_students_t(worth: float, confidence: float) -> None:
    """The quantile of `scipy.stats.t`, which takes half a second to import, to 1e-12; from no freedom to much."""
    freedom = torch.tensor([0.0, 1.0, 2.0, 7.0, 31.0, 255.0, 4095.0, 1e6], dtype=torch.float64)
    one = torch.ones(len(freedom), 1, dtype=torch.float64)
    told = Evidence(one, one, freedom[:, None], one, one, one)
    rule = Calibration(worth=worth)
    found = rule.half_width(told, 1, confidence=confidence) / rule.variance(told).sqrt()
    expected = t.ppf(0.5 + confidence / 2, freedom.numpy() + worth)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-12)


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
