"""Draws of whole blocks: unbiased in value, gradients and variance, by enumeration of every draw."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from enumeration import ENUMERATE, EXACT, INF, Outcomes, all_judged, bias, covariances, features_for, generator
from torch import Tensor

from stages.sampling.blocks import block_cells, block_measure, draw_blocks, whole_blocks
from stages.sampling.draw import draw, draw_judged

# name: (rows, columns, side, attention logits, blocks to draw): four or five blocks, some of them in part
GRIDS: dict[str, tuple[int, int, int, list[float], int]] = {
    "cut off": (3, 3, 2, [0.3, -1.0, 0.8, 0.1, -0.5, 0.4, 1.2, 0.0, -0.2], 2),
    "three": (3, 3, 2, [0.3, -1.0, 0.8, 0.1, -0.5, 0.4, 1.2, 0.0, -0.2], 3),
    "half tissue": (2, 9, 2, [0.1, -INF, 0.5, -0.3, -INF, -INF, 1.0, 0.2, 0.4, *[-INF] * 5, 0.3, -0.8, 0.0, -INF], 2),
    "peaked": (3, 3, 2, [5.0, 4.0, 0.8, 0.1, -0.5, 0.4, 1.2, 0.0, -0.2], 2),
}


def grid(name: str) -> tuple[Tensor, Tensor, int]:
    rows, columns, side, values, n = GRIDS[name]
    return torch.tensor(values, dtype=torch.float64), block_cells(rows, columns, side), n


def shares(logits: Tensor, cells: Tensor) -> Tensor:
    return block_measure(logits.log_softmax(0)[None], cells)[0].exp()


def opened(found: Outcomes, logits: Tensor, cells: Tensor) -> Outcomes:
    log_a = logits.log_softmax(0).expand(len(found.probability), -1)
    return Outcomes(found.probability, whole_blocks(found.draw, log_a, cells))


def test_blocks_tile_the_grid() -> None:
    assert block_cells(3, 3, 2).tolist() == [[0, 1, 3, 4], [2, -1, 5, -1], [6, 7, -1, -1], [8, -1, -1, -1]]
    assert block_cells(2, 3, 1).tolist() == [[i] for i in range(6)]
    with pytest.raises(ValueError, match="at least one cell, got 0"):
        block_cells(2, 3, 0)


@pytest.mark.parametrize("name", GRIDS)
def test_a_block_has_the_share_of_its_tissue(name: str) -> None:
    logits, cells, _ = grid(name)
    a = logits.softmax(0).tolist()
    expected = [sum(a[cell] for cell in block if cell >= 0) for block in cells.tolist()]
    torch.testing.assert_close(shares(logits, cells), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("scheme", ENUMERATE)
@pytest.mark.parametrize("name", GRIDS)
def test_every_scheme_is_unbiased_of_blocks(name: str, scheme: str) -> None:
    """In value and in the gradients to features and attention, as plain autograd has them."""
    logits, cells, n = grid(name)
    found = opened(ENUMERATE[scheme](shares(logits, cells), n), logits, cells)
    assert max(bias(found, logits)) < EXACT


@pytest.mark.parametrize("scheme", ENUMERATE)
@pytest.mark.parametrize("name", GRIDS)
def test_the_stated_variance_is_that_of_blocks(name: str, scheme: str) -> None:
    logits, cells, n = grid(name)
    found = opened(all_judged(scheme, shares(logits, cells), n), logits, cells)
    assert max(bias(found, logits)) < EXACT
    stated, true = covariances(found, logits.log_softmax(0)[None], features_for(len(logits)))
    torch.testing.assert_close(stated, true, atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", GRIDS)
def test_all_tissue_of_a_drawn_block_is_read_and_nothing_else(name: str) -> None:
    logits, cells, n = grid(name)
    log_a = logits.log_softmax(0)[None]
    order = torch.arange(len(cells))
    for take in (draw, draw_judged):
        drawn = draw_blocks(log_a, n, cells=cells, order=order, take=partial(take, generator=generator(3)))
        runs, weights = drawn.cells.view(-1, cells.shape[1]), drawn.weights.view(-1, cells.shape[1])
        for run, weight in zip(runs.tolist(), weights.tolist(), strict=True):
            tissue = [c for c in next(b for b in cells.tolist() if run[0] in b) if c >= 0 and logits[c] > -INF]
            assert run == tissue + [tissue[0]] * (len(run) - len(tissue))
            assert weight == [weight[0]] * len(tissue) + [0.0] * (len(run) - len(tissue))


def test_a_slide_of_few_blocks_is_taken_whole() -> None:
    logits, cells, _ = grid("cut off")
    log_a, order = logits.log_softmax(0)[None], torch.arange(len(cells))
    drawn = draw_blocks(log_a, 4, cells=cells, order=order, take=partial(draw_judged, generator=generator()))
    counted = torch.zeros(9, dtype=torch.float64).index_add_(0, drawn.cells[0], drawn.weights[0])
    assert counted.tolist() == [1.0] * 9
    assert drawn.contrasts is not None
    assert not drawn.contrasts.any()
