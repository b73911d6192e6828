"""What a drawn patch adds to a class's log-odds: the slope at the estimate, checked against autograd."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from stages.prediction.intervals import Evidence, Stages, weigh


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
    torch.testing.assert_close(found.statistics, log_odds(logits).expand(7, -1))
    torch.testing.assert_close(found.by_design, (patches @ slopes.T).square())
    torch.testing.assert_close(found.among_all, (patches @ slopes.T).var(0).expand(7, -1))


def same(found: Evidence, expected: Evidence) -> None:
    for field in fields(Evidence):
        both = getattr(found, field.name), getattr(expected, field.name)
        torch.testing.assert_close(*torch.broadcast_tensors(*map(torch.as_tensor, both)))


@pytest.fixture
def two_stages() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, patch logits, contrasts between 4 regions of 3 patches each and within them, the shares; 5 draws."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.softmax(torch.randn(5, 4, 3, generator=generator, dtype=torch.float64), 2)
    regions = torch.randn(5, 2, 4, 1, generator=generator, dtype=torch.float64)
    within = torch.randn(5, 4, 3, generator=generator, dtype=torch.float64)
    within -= within.mean(2, keepdim=True)
    inside = (torch.eye(4, dtype=torch.float64).unsqueeze(-1) * within.unsqueeze(1)).flatten(2)
    between = (regions * shares.unsqueeze(1)).flatten(2)
    logits = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    patches = torch.randn(5, 12, 3, generator=generator, dtype=torch.float64)
    return logits, patches, torch.cat([between, inside], 1), shares


def test_regions_that_are_read_whole_tell_what_one_patch_of_each_would(
    two_stages: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    """With nothing left to chance inside them, their patches' mean is all that counts."""
    logits, patches, contrasts, shares = two_stages
    mean = (shares.unsqueeze(3) * patches.unflatten(1, (4, 3))).sum(2)
    apart = contrasts[:, :2].unflatten(2, (4, 3)).sum(3)
    contrasts = torch.cat([contrasts[:, :2], torch.zeros_like(contrasts[:, 2:])], 1)
    found = weigh(logits, patches, contrasts, stages=Stages(torch.arange(4).expand(5, -1), shares, 2))
    same(found, weigh(logits, mean, apart))
    assert (found.freedom == 3).all()


def test_of_two_stages_variances_add_up_and_freedom_is_between_theirs(
    two_stages: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    logits, patches, contrasts, shares = two_stages
    between, inside = contrasts.clone(), contrasts.clone()
    between[:, 2:], inside[:, :2] = 0, 0
    both, one, other = (
        weigh(logits, patches, k, stages=Stages(torch.arange(4).expand(5, -1), shares, 2))
        for k in (contrasts, between, inside)
    )
    torch.testing.assert_close(both.unit, one.unit + other.unit)
    for name in ("by_design", "among_random", "among_all"):
        parts = [e.unit * getattr(e, name) for e in (both, one, other)]
        torch.testing.assert_close(parts[0], parts[1] + parts[2])
    assert (one.freedom == 3).all()
    assert (other.freedom == 8).all()
    assert ((both.freedom >= 3) & (both.freedom <= 11)).all()
    plain = weigh(logits, patches, contrasts)
    torch.testing.assert_close(both.by_design * both.unit, plain.by_design * plain.unit)


def test_patches_that_only_fill_up_a_region_tell_nothing(two_stages: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """A region of two cells holds one of them twice, the second time without weight."""
    logits, patches, contrasts, shares = two_stages
    shares[:, 1, 2] = 0
    contrasts[:, :, 5] = 0
    found = weigh(logits, patches, contrasts, stages=Stages(torch.arange(4).expand(5, -1), shares, 2))
    patches[:, 5] += 7
    same(weigh(logits, patches, contrasts, stages=Stages(torch.arange(4).expand(5, -1), shares, 2)), found)
