"""What a cell shows beside the rest of its slide: features in a few directions, standardised per slide, seen with their
neighbours.

Stain and scanner move all features of a slide together, further than tissue does: each slide's own mean and spread are
taken out. A small lesion is a few cells among hundreds whose features scatter as much as the lesion differs; what tells
it is that its cells lie together, so each cell is seen as the mean over a square around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.sampling.draw import drawing_device

FLOOR = 1e-3
"""Of the largest variance: directions below it are noise of rounding and are not enlarged to the size of the others."""


class Whitening(nn.Module):
    """The directions in which features vary most, each scaled to unit spread: ``z = B (x - m)``.

    ``B = diag(l)^(-1/2) V^T`` with the largest eigenvalues l and eigenvectors V of the features' covariance.

    Args:
        dim: length D of a feature.
        components: how many directions r, at most D.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, dim: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("basis", torch.eye(min(components, dim), dim))

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., D) -> (..., r)."""
        return (features - self.mean) @ self.basis.T

    @torch.no_grad()
    def fit(self, groups: Iterable[Tensor], *, within: bool) -> None:
        """Set mean and directions from groups of features (n, D), one a slide, each of which counts alike.

        Args:
            groups: taken once, one at a time.
            within: whether the covariance is of deviations from each group's own mean, so that what differs between
                slides is no direction; else from the mean of all.

        Raises:
            ValueError: no group, or features that do not vary.
        """
        dim = self.mean.numel()
        there = drawing_device(self.mean.device)
        total, squares = (torch.zeros(*shape, dtype=torch.float64, device=there) for shape in ((dim,), (dim, dim)))
        count = 0
        for group in groups:
            values = group.to(there).double()
            mean = values.mean(0)
            away = values - mean if within else values
            total += mean
            squares += away.T @ away / len(values)
            count += 1
        if not count:
            raise ValueError("no features to find directions in")
        mean = total / count
        covariance = squares / count - (0 if within else torch.outer(mean, mean))
        # of few patches most eigenvalues are 0, where torch's divide and conquer may not converge
        wanted = (dim - len(self.basis), dim - 1)
        from scipy.linalg import eigh  # no prediction needs it

        found, vectors = map(torch.from_numpy, eigh(covariance.cpu().numpy(), subset_by_index=wanted, driver="evr"))
        found, vectors = found.flip(0), vectors.flip(1)
        if not float(found[0]) > 0:
            raise ValueError("the encoder gives the same feature for every patch")
        # the sign of an eigenvector is the library's whim: its largest entry is positive
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        scale = found.clamp(min=FLOOR * float(found[0])).rsqrt()
        self.mean.copy_(mean)
        self.basis.copy_((vectors * scale).T)


def standardised(features: Tensor, eps: float = 1e-6) -> Tensor:
    """Features (n, D) of one slide without its mean and spread: ``(x - mean) / std`` over its n cells."""
    away = features - features.mean(0)
    spread: Tensor = away.square().mean(0).sqrt()
    return away / (spread + eps)


def neighbourhood(features: Tensor, tissue: Tensor, sides: Sequence[int]) -> Tensor:
    """Mean features over the tissue cells of a square around each tissue cell.

    Args:
        features: (n, r), of the tissue cells in row-major order.
        tissue: (rows, columns), which cells are tissue, n of them.
        sides: of the squares in cells, odd; at the edge of the tissue there are fewer cells to average.

    Returns:
        (len(sides), n, r): the mean times the square root of the number of cells, so that independent cells of unit
        spread keep it, at the edge as inside, and what stands out is no matter of how few were averaged.
    """
    grid = features.new_zeros((features.shape[1] + 1, *tissue.shape))
    grid[:-1, tissue] = features.T
    grid[-1, tissue] = 1
    out = []
    for side in sides:
        sums = functional.avg_pool2d(grid, side, stride=1, padding=side // 2, divisor_override=1)[:, tissue]
        out.append((sums[:-1] * sums[-1].rsqrt()).T)
    return torch.stack(out)
