"""More of a place that was chosen because of what was drawn: unbiased over every draw, by enumeration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import enumeration
import pytest
import torch
from enumeration import EXACT, all_judged, features_for
from torch import Tensor

from stages.sampling.designs import Draw
from stages.sampling.draw import draw_judged
from stages.sampling.strata import stratified

CELLS = 7
LOGITS = torch.tensor([0.3, -1.0, 0.8, 0.1, -0.5, 0.6, -0.2], dtype=torch.float64)
LOG_A = LOGITS.log_softmax(0)
A, F = LOG_A.exp(), features_for(CELLS)
TRUTH = A @ F
SAY = F[:, 0]  # what the rules below go by

Rule = Callable[[list[int]], list[int]]


def around_the_strongest(drawn: list[int]) -> list[int]:
    """The patch that says most, and the cell after it."""
    best = max(drawn, key=lambda cell: float(A[cell] * SAY[cell]))
    return [best, (best + 1) % CELLS]


def where_nothing_was_drawn(drawn: list[int]) -> list[int]:
    return [next(cell for cell in range(CELLS) if cell not in drawn)]


def wherever_it_says(drawn: list[int]) -> list[int]:
    """Everything where the draw speaks for it, a single cell where it does not."""
    return list(range(CELLS)) if sum(float(SAY[cell]) for cell in drawn) > 0 else [drawn[0]]


def the_same(drawn: list[int]) -> list[int]:
    return [2, 5]


RULES = [around_the_strongest, where_nothing_was_drawn, wherever_it_says, the_same]


@pytest.fixture(autouse=True)
def walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(enumeration.ORDER, CELLS, [3, 0, 5, 4, 1, 6, 2])


def estimate(drawn: Draw) -> Tensor:
    """Of each row (B, N), (B, D)."""
    return torch.einsum("bn,bnd->bd", drawn.weights * A[drawn.cells], F[drawn.cells])


def row(many: Draw, at: int) -> Draw:
    assert many.contrasts is not None
    return replace(many, cells=many.cells[at, None], weights=many.weights[at, None], contrasts=many.contrasts[at, None])


def whole(cells: list[int]) -> Draw:
    masked = torch.full((1, CELLS), -torch.inf, dtype=torch.float64)
    masked[0, cells] = LOG_A[cells]
    return draw_judged(masked, len(cells), generator=torch.Generator())


def of(cells: list[int], n: int) -> tuple[Tensor, Draw]:
    """Every draw of n of these cells, by its probability."""
    q = torch.zeros(CELLS, dtype=torch.float64)
    q[cells] = A[cells] / A[cells].sum()
    found = all_judged("systematic", q, n)
    return found.probability, found.draw


def read_more(drawn: list[int], place: list[int]) -> tuple[Tensor, list[Draw]]:
    """Every outcome of reading a place after a draw, which counts as read, with two of what lies elsewhere."""
    read = sorted({*drawn, *place})
    left = [cell for cell in range(CELLS) if cell not in read]
    if not left:
        return torch.ones(1, dtype=torch.float64), [whole(read)]
    probability, elsewhere = of(left, 2)
    sure = whole(read)
    return probability, [stratified([sure, row(elsewhere, i)]) for i in range(len(probability))]


def naive(drawn: Draw, place: list[int]) -> Tensor:
    """The place counts as read, all other cells of the draw keep their weights."""
    outside = ~torch.isin(drawn.cells, torch.tensor(place))
    kept = torch.where(outside, drawn.weights, 0.0)
    return A[place] @ F[place] + estimate(replace(drawn, weights=kept))[0]


@pytest.mark.parametrize("rule", RULES)
def test_the_estimate_is_unbiased_whatever_the_place_follows(rule: Rule) -> None:
    first, draws = of(list(range(CELLS)), 2)
    mean, mean_naive = torch.zeros_like(TRUTH), torch.zeros_like(TRUTH)
    stated, true = torch.zeros_like(TRUTH), torch.zeros_like(TRUTH)
    random = 0
    for p, i in zip(first.tolist(), range(len(first)), strict=True):
        drawn = row(draws, i)
        place = rule(drawn.cells[0].tolist())
        mean_naive += p * naive(drawn, place)
        second, every = read_more(drawn.cells[0].tolist(), place)
        assert float(second.sum()) == pytest.approx(1, abs=1e-12)
        for p_2, one in zip(second.tolist(), every, strict=True):
            found = estimate(one)[0]
            mean += p * p_2 * found
            assert one.contrasts is not None
            d = one.contrasts[0] @ (A[one.cells[0], None] * F[one.cells[0]])
            stated += p * p_2 * d.square().sum(0)
            true += p * p_2 * (found - TRUTH).square()
            random += bool((d != 0).any())
    assert float((mean - TRUTH).abs().max()) < EXACT
    assert float((stated - true).abs().max()) < EXACT, "its variance is told without bias, too"
    assert random > 0
    bias = float((mean_naive - TRUTH).abs().max())
    if rule is the_same:
        assert bias < EXACT, "with weights that are kept, only a place that does not follow the draw"
    else:
        assert bias > 0.02


def test_a_place_that_is_drawn_from_is_a_stratum_of_its_own() -> None:
    """Two of four cells in the place, two of three elsewhere: every pair of outcomes, each stratum by itself."""
    (p_in, inside), (p_out, outside) = of([0, 2, 3, 6], 2), of([1, 4, 5], 2)
    mean, stated, true = torch.zeros_like(TRUTH), torch.zeros_like(TRUTH), torch.zeros_like(TRUTH)
    for i, p in enumerate(p_in.tolist()):
        for j, q in enumerate(p_out.tolist()):
            one = stratified([row(inside, i), row(outside, j)])
            assert one.contrasts is not None
            found = estimate(one)[0]
            mean += p * q * found
            stated += p * q * (one.contrasts[0] @ (A[one.cells[0], None] * F[one.cells[0]])).square().sum(0)
            true += p * q * (found - TRUTH).square()
    assert float((mean - TRUTH).abs().max()) < EXACT
    assert float((stated - true).abs().max()) < EXACT


def test_all_of_it_is_exact() -> None:
    one = stratified([whole([0, 1, 2]), whole([3, 4, 5, 6])])
    assert one.contrasts is not None
    assert not one.contrasts.any()
    torch.testing.assert_close(estimate(one)[0], TRUTH, rtol=0, atol=1e-15)
