"""What a draw estimates and how far it can be off; entropy and smoothing of the attention."""

from __future__ import annotations

import math

import pytest
import torch
from enumeration import INF, drawn_by, features_for, generator

from stages.sampling.draw import draw
from stages.sampling.estimate import entropy, expectation, hard_bound, smooth
from stages.sampling.schemes import SCHEMES


class TestAttention:
    def test_entropy_of_a_million_cells(self) -> None:
        """Uniform attention over K cells has entropy log K, also in float32."""
        log_a = torch.zeros(1, 1_000_000).log_softmax(1)
        assert float(entropy(log_a)) == pytest.approx(math.log(1e6), rel=1e-5)

    def test_entropy_and_gradient_with_masked_cells(self) -> None:
        """Masked cells change nothing; the gradient to the logits is -a (log a + H)."""
        logits = torch.tensor([[0.3, -INF, -1.0, 0.8]], dtype=torch.float64, requires_grad=True)
        value = entropy(logits.log_softmax(1))
        inner = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64).softmax(0)
        expected = -(inner * inner.log()).sum()
        assert float(value.detach()) == pytest.approx(float(expected), abs=1e-14)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert torch.allclose(gradient[0, [0, 2, 3]], -inner * (inner.log() + expected), atol=1e-14)
        assert float(gradient[0, 1]) == 0

    def test_smoothing_mixes_in_a_uniform_share(self) -> None:
        logits = torch.tensor([[0.3, -INF, -900.0, 0.8]], dtype=torch.float64, requires_grad=True)
        log_a = logits.log_softmax(1)
        mixed = smooth(log_a, 0.1)
        assert torch.allclose(mixed.exp()[0, [0, 2, 3]], 0.9 * log_a.exp()[0, [0, 2, 3]] + 0.1 / 3, atol=1e-14)
        assert float(mixed[0, 1].detach()) == -INF
        assert smooth(log_a, 0.0) is log_a
        (gradient,) = torch.autograd.grad(entropy(mixed).sum(), logits)
        assert bool(gradient.isfinite().all())
        with pytest.raises(ValueError, match=r"in \[0, 1\)"):
            smooth(log_a, 1.0)


def test_features_of_other_cells() -> None:
    log_a = torch.zeros(2, 4).log_softmax(1)
    drawn = draw(log_a, 2, generator=generator())
    with pytest.raises(ValueError, match="features of the drawn cells must be"):
        expectation(log_a, torch.zeros(2, 4, 3), drawn)


@pytest.mark.parametrize("scheme", [*SCHEMES, "pairs"])
def test_hard_bound_holds(scheme: str) -> None:
    """It is the attention of the cells that were not drawn, and bounds the error of what was read."""
    log_a = (2 * torch.randn(50, 30, generator=generator())).double().log_softmax(1)
    features = torch.nn.functional.normalize(features_for(30), dim=1)
    drawn = drawn_by(scheme, log_a, 8)
    bound = hard_bound(log_a, drawn)
    for row in range(50):
        read = sorted(set(drawn.cells[row].tolist()))
        a = log_a[row].exp()
        assert float(bound[row]) == pytest.approx(float(1 - a[read].sum()), abs=1e-14)
        assert float((a @ features - a[read] @ features[read]).norm()) <= float(bound[row]) + 1e-14
