"""Augmentation: nothing at strength 0, each patch by itself, stain that changes as stain does, glass that stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from makers import tissue_pixels
from skimage.data import immunohistochemistry
from torch import Tensor

from stages.augmentation import (
    AT_ONCE,
    EOSIN,
    HEMATOXYLIN,
    Augmentation,
    augment_features,
    focused,
    scaled,
    stained,
    turned,
)

NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8))
IHC = torch.from_numpy(immunohistochemistry()[None, 100:324, 100:324].copy())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_density(*density: float) -> Tensor:
    """A patch (1, 16, 16, 3) of one optical density for each colour."""
    pixels = 256 * torch.exp(-torch.tensor(density, dtype=torch.float64)) - 1
    return pixels.round().to(torch.uint8).expand(1, 16, 16, 3)


def density(patch: Tensor) -> list[float]:
    return (256 / (patch[0, 8, 8].double() + 1)).log().tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "same",
    [
        lambda patches: Augmentation.none()(patches, seeded()),
        lambda patches: stained(patches, torch.ones(len(patches), 3), torch.zeros(len(patches), 3)),
        lambda patches: scaled(patches, torch.ones(len(patches))),
        lambda patches: focused(patches, torch.zeros(len(patches))),
    ],
    ids=["none", "stained", "scaled", "focused"],
)
def test_at_strength_0_patches_are_as_they_were(same: Callable[[Tensor], Tensor]) -> None:
    """Bit for bit, of every colour."""
    for patches in (NOISE, NOISE[:0], IHC):
        assert torch.equal(same(patches), patches)


@pytest.mark.parametrize(
    "change", [{"turn": True}, {"stain": 0.3}, {"shift": 0.1}, {"scale": 1.25}, {"focus": 0.5}], ids=str
)
def test_each_part_varies_each_patch_by_its_seed_and_itself(change: dict[str, Any]) -> None:
    """Alike patches become unlike; the seed alone says how; what lies beside a patch does not matter."""
    vary = replace(Augmentation.none(), **change)
    patches = NOISE[:1].repeat(16 * AT_ONCE + 1, 1, 1, 1)
    found = vary(patches, seeded())
    assert (found.shape, found.dtype) == (patches.shape, torch.uint8)
    assert len(found.flatten(1).unique(dim=0)) == (8 if change == {"turn": True} else len(patches))
    assert torch.equal(found, vary(patches, seeded()))
    assert not torch.equal(found, vary(patches, seeded(1)))
    beside = patches.clone()
    beside[1:] = 255 - beside[1:]
    assert torch.equal(vary(beside, seeded())[0], found[0])


def test_patches_are_turned_all_eight_ways_alike() -> None:
    patch = torch.arange(2 * 2 * 3, dtype=torch.uint8).reshape(1, 2, 2, 3)
    count = 4000
    seen, counts = turned(patch.repeat(count, 1, 1, 1), seeded()).flatten(1).unique(dim=0, return_counts=True)
    assert len(seen) == 8
    # a binomial share of 1/8: five standard errors
    assert (counts / count - 1 / 8).abs().max() < 5 * (1 / 8 * 7 / 8 / count) ** 0.5


@pytest.mark.parametrize("stain", [HEMATOXYLIN, EOSIN], ids=["hematoxylin", "eosin"])
@pytest.mark.parametrize("times", [0.7, 1.3])
def test_a_stains_density_is_multiplied_and_no_others(stain: tuple[float, ...], times: float) -> None:
    """Within what eight bits tell."""
    patch = of_density(*stain)
    ours, others = torch.ones(1, 3), torch.full((1, 3), times)
    index = (HEMATOXYLIN, EOSIN).index(stain)
    ours[0, index], others[0, index] = times, 1.0
    assert density(stained(patch, ours, torch.zeros(1, 3))) == pytest.approx([times * d for d in stain], abs=0.03)
    assert density(stained(patch, others, torch.zeros(1, 3))) == pytest.approx(stain, abs=0.03)


def test_a_shift_adds_stain_to_tissue() -> None:
    found = stained(of_density(0.5, 0.8, 0.4), torch.ones(1, 3), torch.tensor([[0.2, 0.0, 0.0]]))
    length = sum(part**2 for part in HEMATOXYLIN) ** 0.5
    expected = [d + 0.2 * h / length for d, h in zip((0.5, 0.8, 0.4), HEMATOXYLIN, strict=True)]
    assert density(found) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("glass", [(255, 255, 255), (244, 244, 244), (245, 240, 243), (238, 238, 240)])
def test_glass_stays_white(glass: tuple[int, int, int]) -> None:
    patches = torch.tensor(glass, dtype=torch.uint8).expand(200, 16, 16, 3)
    found = Augmentation()(patches, seeded())
    assert int((found.int() - patches.int()).abs().max()) <= (0 if glass == (255,) * 3 else 3)


@pytest.mark.parametrize("patch", [IHC, torch.from_numpy(tissue_pixels(128, 128))[None], of_density(5.5, 5.5, 5.5)])
def test_colours_stay_what_a_stain_can_be(patch: Tensor) -> None:
    """Next to nothing is driven to the end of the scale that was not near it, and dark stays dark."""
    found = Augmentation(turn=False, scale=1, focus=0)(patch.repeat(50, 1, 1, 1), seeded()).int()
    before = patch.int()
    driven = ((found == 0) & (before > 20)) | ((found == 255) & (before < 235))
    assert float(driven.float().mean()) < 0.01
    assert (found.float().mean(-1) - before.float().mean(-1)).abs().max() < 75


def test_scaled_makes_things_larger_in_their_place() -> None:
    """A disc about the middle, and one colour to the very edge."""
    y, x = np.mgrid[:64, :64] - 31.5
    disc = torch.from_numpy(np.where(np.hypot(x, y) < 12, 0, 255).astype(np.uint8))[None, :, :, None].repeat(3, 1, 1, 3)
    times = torch.tensor([0.8, 1.0, 1.25])
    found = scaled(disc, times)
    area = (255 - found.double()[..., 0]).sum((1, 2)) / 255
    assert (area / area[1]).tolist() == pytest.approx([0.64, 1, 1.5625], rel=0.03)
    flat = torch.full((3, 32, 32, 3), 77, dtype=torch.uint8)
    assert torch.equal(scaled(flat, times), flat)


def test_focus_takes_detail_away_or_adds_it() -> None:
    """And leaves alone how much light there is, and what has no detail."""
    detail = [float(focused(IHC, torch.tensor([more])).double().diff(dim=2).abs().mean()) for more in (-0.8, 0, 0.8)]
    assert detail[0] < 0.7 * detail[1] < 0.7 * 0.8 * detail[2]
    assert float(focused(IHC, torch.tensor([-0.8])).double().mean()) == pytest.approx(
        float(IHC.double().mean()), abs=0.5
    )
    flat = torch.full((1, 32, 32, 3), 77, dtype=torch.uint8)
    assert torch.equal(focused(flat, torch.tensor([0.8])), flat)


@pytest.mark.parametrize("change", [{"stain": -0.1}, {"stain": 2.1}, {"scale": 0.9}, {"focus": 1.5}, {"shift": 1.1}])
def test_strengths_that_are_none_are_refused(change: dict[str, float]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"{name} must lie between .*, found {value}"):
        Augmentation(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(("noise", "dropout"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.2, 0.1)])
def test_augmented_features_are_right_on_average(noise: float, dropout: float) -> None:
    """And spread as far as they should: ``f^2 p / (1 - p) + (noise spread)^2``."""
    count = 20_000
    feature, spread = torch.tensor([1.0, -2.0, 0.0, 5.0]), torch.tensor([1.0, 0.5, 2.0, 0.0])
    features = feature.expand(count, 4)
    found = augment_features(features, spread, seeded(), noise=noise, dropout=dropout)
    variance = feature**2 * dropout / (1 - dropout) + (noise * spread) ** 2
    assert ((found.mean(0) - feature).abs() <= 5 * (variance / count).sqrt() + 1e-6).all()
    torch.testing.assert_close(found.var(0), variance, rtol=0.06, atol=1e-6)
    if not noise + dropout:
        assert torch.equal(found, features)
