"""What a cell shows beside the rest of its slide: directions of unit spread, and means of what is around it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stages.context import FLOOR, Whitening, neighbourhood, standardised


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slides(count: int = 5, dim: int = 6) -> list[Tensor]:
    """Features of slides of different size, each with a stain of its own that outweighs what is on it."""
    mix = torch.randn(dim, dim, generator=generator(1))
    return [
        torch.randn(40 + 30 * i, dim, generator=generator(i + 2)) @ mix
        + 20 * torch.randn(dim, generator=generator(50 + i))
        for i in range(count)
    ]


def covariance(groups: list[Tensor], *, within: bool) -> Tensor:
    """Each slide counts alike, whatever its size."""
    every = torch.stack([group.mean(0) for group in groups]).mean(0)
    away = [group - (group.mean(0) if within else every) for group in groups]
    return torch.stack([one.T @ one / len(one) for one in away]).mean(0)


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("components", [2, 6, 9])
def test_directions_are_uncorrelated_and_of_unit_spread(within: bool, components: int) -> None:
    found = Whitening(6, components)
    found.fit(slides(), within=within)
    white = covariance([found(group) for group in slides()], within=within)
    torch.testing.assert_close(white, torch.eye(min(6, components)), atol=1e-3, rtol=0)


def test_the_directions_are_those_of_the_largest_variance_the_largest_first() -> None:
    spread = torch.tensor([0.5, 3.0, 1.0, 9.0])
    found = Whitening(4, 2)
    found.fit([torch.randn(4000, 4, generator=generator()) * spread], within=True)
    assert found.basis.abs().argmax(1).tolist() == [3, 1]
    torch.testing.assert_close(found.basis.norm(dim=1), 1 / spread[[3, 1]], rtol=0.05, atol=0)


def test_a_directions_sign_is_no_whim_of_the_library() -> None:
    """Its largest entry is positive, also where the order of rows, which is none of its business, is another."""
    first, second = Whitening(6, 6), Whitening(6, 6)
    first.fit(slides(), within=True)
    second.fit([group.flip(0) for group in slides()], within=True)
    torch.testing.assert_close(first.basis, second.basis, rtol=1e-4, atol=1e-6)
    largest = first.basis.gather(1, first.basis.abs().argmax(1, keepdim=True))
    assert bool((largest > 0).all())


def test_directions_of_rounding_are_not_enlarged() -> None:
    found = Whitening(3, 3)
    found.fit([torch.randn(500, 3, generator=generator()) * torch.tensor([1.0, 1.0, 1e-6])], within=True)
    assert float(found.basis.norm(dim=1)[2]) == pytest.approx(FLOOR**-0.5, rel=0.1)


@pytest.mark.parametrize(
    ("groups", "words"), [([], "no features"), ([torch.ones(7, 3)], "the same feature for every patch")]
)
def test_features_that_tell_nothing_are_refused(groups: list[Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Whitening(3, 2).fit(groups, within=True)


def test_a_slides_own_mean_and_spread_are_taken_out() -> None:
    """So that stain, which moves and stretches all of a slide's features, leaves nothing."""
    plain = torch.randn(200, 5, generator=generator())
    stained = 3 * plain + torch.arange(5.0)
    torch.testing.assert_close(standardised(stained), standardised(plain), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(standardised(plain).mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardised(plain).square().mean(0), torch.ones(5), rtol=1e-4, atol=0)
    assert bool(standardised(torch.ones(4, 2)).eq(0).all())  # of cells that are all alike


@pytest.mark.parametrize("shape", [(7, 9), (1, 5), (3, 3)])
def test_the_neighbourhood_is_the_mean_over_tissue_in_the_square(shape: tuple[int, int]) -> None:
    """By hand, at the slide's edges and the tissue's, and where the square is larger than the slide."""
    tissue = torch.rand(shape, generator=generator(3)) < 0.7
    places = tissue.nonzero().tolist()
    features = torch.randn(len(places), 4, generator=generator())
    found = neighbourhood(features, tissue, (1, 3, 5, 7))
    assert found.shape == (4, len(places), 4)
    for scale, side in enumerate((1, 3, 5, 7)):
        for i, (row, column) in enumerate(places):
            near = [j for j, (y, x) in enumerate(places) if abs(y - row) <= side // 2 and abs(x - column) <= side // 2]
            torch.testing.assert_close(found[scale, i], len(near) ** 0.5 * features[near].mean(0), rtol=1e-4, atol=1e-5)


def test_independent_cells_keep_unit_spread() -> None:
    side = 60
    features = torch.randn(side * side, 8, generator=generator())
    found = neighbourhood(features, torch.ones(side, side, dtype=torch.bool), (3, 5))
    grid = found.view(2, side, side, 8)
    inside, edge = grid[:, 2:-2, 2:-2].flatten(1, 2), grid[:, 0].flatten(1, 2)
    # 56^2 cells in squares of 25 are 125 independent ones, eight times: the spread is known to 2 %, and 4 errors
    torch.testing.assert_close(inside.std(1).mean(1), torch.ones(2), rtol=0.09, atol=0)
    torch.testing.assert_close(edge.std(1), torch.ones(2), rtol=0.2, atol=0)  # of fewer cells, but no louder
