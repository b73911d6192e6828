"""What a drawn patch adds to a class's log-odds: the slope at the estimate, checked against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stages.prediction.intervals import weigh


def log_odds(logits: Tensor) -> Tensor:
    """``log p_c / (1 - p_c)``, written out."""
    p = torch.softmax(logits, 0)
    return torch.log(p / (1 - p))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_slopes_are_those_of_the_log_odds(classes: int) -> None:
    """With one contrast on one patch the design's variance is the square of what that patch adds."""
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(classes, generator=generator, dtype=torch.float64)
    patches = torch.randn(7, classes, generator=generator, dtype=torch.float64)
    found = weigh(logits.expand(7, -1), patches.expand(7, -1, -1), torch.eye(7, dtype=torch.float64).unsqueeze(1))
    slopes = torch.autograd.functional.jacobian(log_odds, logits)
    torch.testing.assert_close(found.log_odds, log_odds(logits).expand(7, -1))
    torch.testing.assert_close(found.by_design, (patches @ slopes.T).square())
    torch.testing.assert_close(found.among_all, (patches @ slopes.T).var(0).expand(7, -1))
