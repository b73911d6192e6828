"""The built-in filter bank learns with all its weights and starts blind to even colour."""

from __future__ import annotations

import torch

from stages.encoder.built_in import built_in_encoder, filter_bank


def patches(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def test_every_parameter_gets_a_gradient() -> None:
    encoder = built_in_encoder(16)
    (encoder(patches(8, 64)) * torch.randn(16, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_it_starts_blind_to_even_colour() -> None:
    """Each of its first filters sums to zero over each colour."""
    with torch.no_grad():
        inner = filter_bank(16)[0].weight.mean(dim=(2, 3))
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-7)
