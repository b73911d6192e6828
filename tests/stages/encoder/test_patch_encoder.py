"""Patches become unit features, one by one, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch

from stages.encoder.build import build_encoder
from stages.encoder.patch_encoder import PatchEncoder, unit


def patches(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", [32, 33, 96, 128, 255])
def test_features_have_length_one(size: int) -> None:
    features = build_encoder("small", dim=24)(patches(3, size))
    assert features.shape == (3, 24)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


def test_a_feature_does_not_depend_on_the_rest_of_the_batch() -> None:
    encoder, batch = build_encoder("small", dim=16), patches(6, 64)
    alone = torch.cat([encoder(batch[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(encoder(batch), alone, rtol=1e-4, atol=1e-5)


def test_no_patches_give_no_features() -> None:
    assert build_encoder("small", dim=16)(patches(0, 64)).shape == (0, 16)


def test_unit_has_a_finite_gradient_at_zero() -> None:
    zero = torch.zeros(2, 5, requires_grad=True)
    unit(zero).sum().backward()
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 64, 64, 3)])
def test_patches_of_another_shape_or_type_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected patches \(N, P, P, 3\) of uint8"):
        build_encoder("small", dim=16)(bad)


def test_a_patchs_feature_never_depends_on_its_batch_not_even_in_training() -> None:
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    encoder = PatchEncoder(body, 8).train()
    patches = torch.randint(256, (5, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.testing.assert_close(encoder(patches)[:1], encoder(patches[:1]))


def test_standardised_features_point_every_way() -> None:
    """What all patches have in common is taken out: before, the mean feature is nearly a unit vector itself."""
    torch.manual_seed(0)
    encoder = build_encoder("small", dim=16)
    patches = torch.randint(256, (64, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    before = encoder(patches).mean(0).norm()
    encoder.standardise(patches)
    features = encoder(patches)
    assert before > 0.9
    assert features.mean(0).norm() < 0.3
    torch.testing.assert_close(features.norm(dim=1), torch.ones(64), rtol=0, atol=1e-4)


def test_pixels_are_normalised_to_the_last_bit() -> None:
    """``(x - mean) / std`` of each colour, whatever the order in which it is done."""
    encoder = PatchEncoder(torch.nn.Identity(), 3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    patches = torch.randint(0, 256, (5, 12, 12, 3), dtype=torch.uint8)
    wanted = (patches.permute(0, 3, 1, 2).float() - encoder.mean) / encoder.std
    assert torch.equal(encoder._responses(patches), wanted)
