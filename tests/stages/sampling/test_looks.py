"""Looks at what is unread, together: unbiased, with the variance that they state, by enumeration of every two looks."""

from __future__ import annotations

import pytest
import torch
from enumeration import EXACT, UNBIASED, Outcomes, all_judged, bias, covariances, features_for, generator, logits_of

from stages.sampling import looks
from stages.sampling.designs import Draw
from stages.sampling.draw import draw_judged
from stages.sampling.looks import combine, foreseen_variances, look_shares


def two_looks(scheme: str, case: str, n: tuple[int, int], *, shares: list[float] | None = None) -> Outcomes:
    """Every first look and, of what it left, every second one, as one draw each."""
    logits, _ = logits_of(case)
    q = logits.softmax(0)
    shares = shares or look_shares(foreseen_variances(q.log(), [n[0], sum(n)]))
    first = all_judged(scheme, q, n[0])
    probability, drawn = [], []
    for p, cells, weights, contrasts in zip(
        first.probability, first.draw.cells, first.draw.weights, first.draw.contrasts, strict=True
    ):
        left = q.index_fill(0, cells, 0.0)
        second = all_judged(scheme, left / left.sum(), n[1])
        count = len(second.probability)
        before = Draw(*(one.expand(count, *one.shape) for one in (cells, weights, contrasts)))
        probability.append(p * second.probability)
        drawn.append(combine([before, second.draw], shares))
    parts = [torch.cat([getattr(one, name) for one in drawn]) for name in ("cells", "weights", "contrasts")]
    return Outcomes(torch.cat(probability), Draw(*parts))


@pytest.mark.parametrize("most", [1, 512])
@pytest.mark.parametrize("case", ["spread", "peaked", "tied"])
@pytest.mark.parametrize("scheme", UNBIASED)
def test_two_looks_are_unbiased_and_state_their_variance(
    scheme: str, case: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value, both gradients and covariance, also where contrasts of different looks share a row."""
    monkeypatch.setattr(looks, "MOST_CONTRASTS", most)
    logits, _ = logits_of(case)
    found = two_looks(scheme, case, (2, 2))
    assert float(found.probability.sum()) == pytest.approx(1, abs=1e-12)
    assert max(bias(found, logits)) < EXACT
    stated, true = covariances(found, logits.log_softmax(0), features_for(len(logits)))
    assert float((stated - true).abs().max()) < EXACT


def test_the_first_look_counts() -> None:
    """The two leave less open than either alone: the second, which knows what the first read, with all of the share."""
    logits, _ = logits_of("spread")
    log_a, features = logits.log_softmax(0), features_for(len(logits))
    alone = [two_looks("systematic", "spread", (2, 2), shares=one) for one in ([1.0, 0.0], [0.0, 1.0])]
    both = covariances(two_looks("systematic", "spread", (2, 2)), log_a, features)[1].trace()
    assert all(both < 0.9 * covariances(one, log_a, features)[1].trace() for one in alone)


@pytest.mark.parametrize("scheme", ["systematic", "gumbel"])
def test_what_reads_all_that_is_left_is_exact(scheme: str) -> None:
    """Each different cell then weighs 1, and nothing is left to chance."""
    found = two_looks(scheme, "spread", (2, 3))
    weights = torch.zeros(len(found.probability), 5, dtype=torch.float64)
    weights.scatter_add_(1, found.draw.cells, found.draw.weights)
    assert torch.equal(weights, torch.ones_like(weights))
    assert found.draw.contrasts is not None
    assert not found.draw.contrasts.any()


def test_the_foreseen_variance_is_that_of_patches_that_differ_at_random() -> None:
    """Of equal cells, n of the K that are left: their part of the measure, squared, times 1 / n - 1 / K."""
    equal = torch.full((12,), 0.1, dtype=torch.float64).log().masked_fill(torch.arange(12) > 9, -torch.inf)
    found = foreseen_variances(equal, [4, 7, 10])
    assert found == pytest.approx([1 / 4 - 1 / 10, 0.6**2 * (1 / 3 - 1 / 6), 0])
    assert look_shares(found) == [0, 0, 1]
    assert look_shares(found[:2]) == pytest.approx([0.06 / 0.21, 0.15 / 0.21])


def test_looks_of_two_levels_are_padded_to_one_length() -> None:
    """Runs of two and of three cells: what is added weighs nothing, and contrasts between regions come first."""
    draws = [
        Draw(torch.arange(2 * k)[None], torch.rand(1, 2 * k).double(), torch.rand(1, 3, 2 * k).double(), 2, 1)
        for k in (2, 3)
    ]
    both = combine(draws, [0.25, 0.75], afresh=True)
    assert (both.regions, both.between) == (4, 2)
    assert both.cells.tolist() == [[0, 1, 0, 2, 3, 2, 0, 1, 2, 3, 4, 5]]
    kept = torch.tensor([0, 1, 3, 4, *range(6, 12)])
    expected = torch.cat([0.25 * draws[0].weights, 0.75 * draws[1].weights], 1)
    torch.testing.assert_close(both.weights[:, kept], expected)
    assert not both.weights[:, [2, 5]].any()
    assert not both.contrasts[:, :, [2, 5]].any()
    torch.testing.assert_close(both.contrasts[:, 1, 6:], 0.75 * draws[1].contrasts[:, 0])


def test_one_look_is_itself() -> None:
    drawn = draw_judged(logits_of("spread")[0].log_softmax(0)[None], 2, generator=generator())
    assert combine([drawn], [1.0]) is drawn
