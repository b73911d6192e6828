"""Any network as a patch encoder: unit features, one patch at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchEncoder(nn.Module):
    """Any network ``g`` made to give unit features: ``f = h / sqrt(|h|^2 + eps^2)`` with ``h = (g(x) - c) / s``.

    With unit features the attention itself is the minimum-variance proposal. What one patch gives never depends on
    the other patches of the batch: batch normalisation in ``g`` keeps the statistics that it came with.

    Args:
        body: (N, 3, P, P) float, normalised by ``mean`` and ``std`` -> (N, dim).
        dim: length of a feature.
        mean, std: of the colour channels on a scale of 0 to 1.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        body: nn.Module,
        dim: int,
        *,
        mean: tuple[float, ...] = (0.7, 0.6, 0.7),
        std: tuple[float, ...] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        self.body = body
        self.dim = dim
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))

    def train(self, mode: bool = True) -> PatchEncoder:
        """As `torch.nn.Module.train`, but statistics of batch normalisation stay as they are: draws are not batches."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (N, P, P, 3) uint8 -> unit features (N, dim).

        Raises:
            ValueError: the patches have another shape or type.
        """
        if patches.ndim != 4 or patches.shape[-1] != 3 or patches.dtype != torch.uint8:
            raise ValueError(
                f"expected patches (N, P, P, 3) of uint8, found {tuple(patches.shape)} of {patches.dtype}; "
                "pass RGB pixels as they were read"
            )
        if len(patches) == 0:
            return self.mean.new_zeros((0, self.dim))
        return unit((self._responses(patches) - self.centre) / self.spread)

    def _responses(self, patches: Tensor) -> Tensor:
        # row by row, colours alternating as they are stored: three times as fast as three at a time
        rows = patches.to(self.mean.dtype).flatten(2)
        mean, std = (values.flatten().repeat(patches.shape[2]) for values in (self.mean, self.std))
        responses: Tensor = self.body(rows.sub_(mean).div_(std).view(patches.shape).permute(0, 3, 1, 2))
        return responses

    @torch.no_grad()
    def standardise(self, patches: Tensor) -> None:
        """Set ``c`` and ``s`` to mean and standard deviation of ``g`` over patches (N, P, P, 3), once, before training.

        What all patches have in common would otherwise be most of every unit feature, and what tells them apart a
        small angle that training must find first (data-dependent initialisation: Salimans & Kingma, 2016).
        """
        responses = self._responses(patches)
        self.centre.copy_(responses.mean(0))
        self.spread.copy_(responses.std(0).clamp(min=1e-6))


def unit(vectors: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale vectors (..., D) to length 1; the gradient stays finite at 0, where a plain norm has none."""
    return vectors * torch.rsqrt((vectors * vectors).sum(dim=-1, keepdim=True) + eps**2)
