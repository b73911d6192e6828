"""The grids of a patient's slides as one: every cell has its place, and the walk goes slide by slide."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.model.stack import Stack, walk
from stages.sampling.walk import hilbert_order

SHAPES = ((3, 5), (4, 2), (1, 7))


def test_cells_go_to_the_grid_of_all_and_back() -> None:
    stack = Stack(SHAPES, apart=2)
    assert stack.shape == (3 + 2 + 4 + 2 + 1, 7)
    own = [torch.arange(r * c).reshape(r, c) + 100 * i for i, (r, c) in enumerate(SHAPES)]
    joined = stack.joined(own)
    for i, ((r, c), back) in enumerate(zip(SHAPES, stack.parts(joined.numpy()), strict=True)):
        np.testing.assert_array_equal(back, own[i])
        assert joined.flatten()[stack.cells(i, np.arange(r * c))].tolist() == own[i].flatten().tolist()
    # in any order, and of slides that have none
    cells = np.concatenate([stack.cells(2, np.array([6, 0])), stack.cells(0, np.array([14, 3]))])
    found = {i: (places.tolist(), back.tolist()) for i, places, back in stack.split(cells)}
    assert found == {0: ([2, 3], [14, 3]), 2: ([0, 1], [6, 0])}


def test_the_walk_goes_slide_by_slide_and_meets_every_cell_once() -> None:
    stack = Stack(SHAPES, apart=2)
    order = walk(stack).numpy()
    assert sorted(order) == list(range(stack.shape[0] * stack.shape[1]))
    begin = 0
    for i, (r, c) in enumerate(SHAPES):
        own = stack.cells(i, hilbert_order(r, c).numpy())
        np.testing.assert_array_equal(order[begin : begin + r * c], own)
        begin += r * c
    assert walk(stack) is walk(Stack(SHAPES, apart=2)), "it is made once"


def test_one_slide_is_its_own_grid() -> None:
    stack = Stack(((3, 5),), apart=2)
    values = torch.rand(3, 5)
    assert stack.joined([values]) is values
    assert torch.equal(walk(stack), hilbert_order(3, 5))
