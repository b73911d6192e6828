"""A draw's logits and contrasts -> probabilities and intervals."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import t
from torch import Tensor

from stages.prediction.intervals import Calibration
from stages.prediction.predict import predict


def independent_pairs(patch_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The estimate and contrasts of 2 H independent draws of equal weight, paired: what `predict` takes."""
    count = len(patch_logits)
    contrasts = torch.zeros(count // 2, count, dtype=torch.float64)
    pair = torch.arange(count // 2)
    contrasts[pair, 2 * pair], contrasts[pair, 2 * pair + 1] = 1 / count, -1 / count
    return patch_logits.mean(0), patch_logits, contrasts


def test_two_classes_by_hand() -> None:
    """Differences of 1 and 3 in log-odds over four draws, all left to chance: every part of the rule, written out."""
    odds = torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64)
    rule = Calibration(alpha=0.3, beta=0.8, eta=0.25, worth=2.0, budgets=(2, 8), factors=(1.0, 1.4))
    found = predict(*independent_pairs(torch.stack([-odds / 2, odds / 2], 1)), calibration=rule)
    unit = 4 / 16
    by_design, among = (1 + 9) / 16 / unit, float(odds.var())  # among all and among those left to chance are the same
    floor = 1e-3 * among
    own = 0.25 * math.log(by_design + floor) + 0.75 * math.log(among + floor)
    cohort = 0.3 + 0.8 * math.log(among + floor)
    w = 3 / (3 + 2)
    half = 1.2 * float(t.ppf(0.975, 5)) * math.sqrt(math.exp(w * own + (1 - w) * cohort) * unit)  # 4 is midway of 2, 8
    assert float(found.low[1]) == pytest.approx(1 / (1 + math.exp(-(0.5 - half))), abs=1e-12)
    assert float(found.high[1]) == pytest.approx(1 / (1 + math.exp(-(0.5 + half))), abs=1e-12)
    assert float(found.low[0]) == pytest.approx(1 - float(found.high[1]), abs=1e-12)
    assert float(found.values.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_without_a_cohort_exchangeable_patches_are_covered_as_often_as_stated(classes: int) -> None:
    """Gaussian patches around known logits: 95 % intervals hold the truth of all classes 95 % of the time."""
    generator = torch.Generator().manual_seed(classes)
    truth = torch.linspace(-1, 1, classes, dtype=torch.float64)
    p = torch.softmax(truth, 0)
    trials = 2000
    hits = 0
    for _ in range(trials):
        noise = torch.randn(32, classes, generator=generator, dtype=torch.float64)
        found = predict(*independent_pairs(truth + noise))
        hits += bool(((found.low <= p) & (p <= found.high)).all())
    error = math.sqrt(0.95 * 0.05 / trials)
    # four standard errors; the head's curvature (linearised with more than two classes) may cost a little more, and the
    # classes' errors, which are alike, make their shares of the five per cent overlap
    assert 0.95 - 4 * error - 0.005 < hits / trials < 0.95 + 4 * error + 0.005, hits / trials


@pytest.mark.parametrize("draws", [2, 4, 8])
def test_few_draws_without_a_cohort_are_covered_as_often_as_stated(draws: int) -> None:
    generator = torch.Generator().manual_seed(draws)
    trials, hits = 800, 0
    for _ in range(trials):
        odds = torch.randn(draws, generator=generator, dtype=torch.float64)
        found = predict(*independent_pairs(torch.stack([-odds / 2, odds / 2], 1)))
        hits += float(found.low[1]) <= 0.5 <= float(found.high[1])
    assert abs(hits / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials) + 0.005, hits / trials


def test_pairs_that_look_alike_by_luck_do_not_make_sure() -> None:
    """Both pairs hold equal patches, but the pairs differ: the slide's patches can, and the interval remembers."""
    odds = torch.tensor([-1.0, -1.0, 3.0, 3.0], dtype=torch.float64)
    found = predict(*independent_pairs(torch.stack([-odds / 2, odds / 2], 1)))
    assert float(found.high[1] - found.low[1]) > 0.25


@pytest.mark.parametrize("calibration", [None, Calibration()])
def test_chance_that_drew_one_cell_every_time_tells_nothing_of_the_others(calibration: Calibration | None) -> None:
    """Independent draws of a slide where one cell has most of the attention: all look alike, and nothing is known."""
    same = torch.tensor([[0.4, -0.4]], dtype=torch.float64).expand(4, -1)
    logits, patches, contrasts = independent_pairs(same)
    found = predict(logits, patches, contrasts, cells=torch.tensor([7, 7, 7, 7]), calibration=calibration)
    assert (found.low.tolist(), found.high.tolist()) == ([0, 0], [1, 1])
    blank = predict(logits, patches, contrasts, cells=torch.arange(4), calibration=calibration)
    torch.testing.assert_close(blank.low, blank.high)


def test_nothing_left_to_chance_leaves_nothing_open() -> None:
    for logits in torch.randn(50, 3, generator=torch.Generator().manual_seed(0)):
        found = predict(logits, torch.randn(5, 3), torch.zeros(1, 5))
        assert torch.equal(found.low, found.high)
        assert torch.equal(found.low, found.values)


@pytest.mark.parametrize("spread", [1e-9, 1.0, 300.0])
def test_a_probability_lies_within_its_interval_to_the_last_bit(spread: float) -> None:
    """Also where it is 0 or 1 to float64."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        found = predict(*independent_pairs(spread * torch.randn(8, 3, generator=generator, dtype=torch.float64)))
        ends = torch.stack([found.low, found.values, found.high])
        assert torch.equal(ends, ends.sort(0).values)
        assert bool(((ends >= 0) & (ends <= 1)).all())


@pytest.mark.parametrize(
    ("logits", "words"), [(torch.zeros(1), "at least 2 classes"), (torch.full((2,), torch.nan), "not finite")]
)
def test_what_has_no_interval_is_refused(logits: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        predict(logits, torch.zeros(3, len(logits)), torch.zeros(1, 3))
