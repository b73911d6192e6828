"""The walk over a grid keeps neighbours together."""

from __future__ import annotations

import pytest
import torch
from enumeration import drawn_by, generator
from torch import Tensor

from stages.sampling.estimate import expectation
from stages.sampling.walk import hilbert_order


class TestHilbert:
    @pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 7), (9, 1), (3, 5), (12, 7), (16, 16), (6, 100), (40, 33)])
    def test_is_a_permutation(self, rows: int, cols: int) -> None:
        assert torch.equal(hilbert_order(rows, cols).sort().values, torch.arange(rows * cols))

    @pytest.mark.parametrize(("rows", "cols"), [(2, 2), (8, 8), (32, 32), (4, 20), (24, 8), (1, 7)])
    def test_neighbours_touch(self, rows: int, cols: int) -> None:
        """Consecutive cells share a side on any grid of whole squares of side 2^k."""
        order = hilbert_order(rows, cols)
        steps = (order // cols).diff().abs() + (order % cols).diff().abs()
        assert bool((steps == 1).all())

    def test_empty_grid(self) -> None:
        with pytest.raises(ValueError, match="at least one row"):
            hilbert_order(0, 4)


def test_the_walk_lowers_the_error() -> None:
    """On smooth features the walk makes systematic and its pairs better than iid, and a random order loses that."""
    side, n, rows = 32, 32, 400
    y, x = torch.meshgrid(*(torch.linspace(0, 2, side, dtype=torch.float64),) * 2, indexing="ij")
    features = torch.stack([(2 * x).sin(), (3 * y).cos(), x * y], -1).view(-1, 3)
    log_a = (0.5 * (x + y).sin()).flatten().log_softmax(0).expand(rows, -1)
    shuffled = torch.randperm(side * side, generator=generator(9))

    def mse(scheme: str, order: Tensor) -> float:
        drawn = drawn_by(scheme, log_a, n, order=order)
        error = expectation(log_a, features[drawn.cells], drawn) - log_a[0].exp() @ features
        return float(error.square().sum(1).mean())

    walk = hilbert_order(side, side)
    baseline = mse("iid", walk)
    assert mse("systematic", walk) < 0.2 * baseline
    assert mse("pairs", walk) < 0.2 * baseline
    assert mse("systematic", shuffled) > 0.4 * baseline
