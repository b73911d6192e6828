"""Two ways to select patches that are no estimates: memory-bounded top-M over all patches, and perturbed top-k."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.paper.layers import (
    Batch,
    Classifier,
    GatedAttention,
    LowViewAttention,
    Output,
    PatchEncoder,
    grid_corners,
    ink,
    read_patches,
)
from benchmarks.paper.models import LOGIT_SCALE, cell_corners, encode, patch_ink, standardise_evenly
from stages.encoder.build import unit


class TopSelection(Classifier):
    """Looks at every patch of a grid without gradients, keeps the ``keep`` that score best, and learns from those.

    Patches stream through in chunks, so that memory depends on ``keep`` and ``chunk`` only. The score is that of the
    gated attention, which then weighs the kept ones. The idea of iterative patch selection (B. Bergner, C. Lippert and
    A. Mahendran, "Iterative Patch Selection for High-Resolution Image Recognition", ICLR 2023), whose aggregator is
    a transformer.
    """

    def __init__(
        self,
        encoder: PatchEncoder,
        classes: int,
        *,
        patch_px: int,
        grid_stride: int,
        keep: int,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.attention = GatedAttention(encoder.dim)
        self.head = nn.Linear(encoder.dim, classes)
        self.patch_px, self.grid_stride, self.keep, self.chunk = patch_px, grid_stride, keep, chunk

    def forward(self, batch: Batch, generator: torch.Generator) -> Output:
        """Class logits, and the log attention over the patches that were kept."""
        kept = self.select(batch)
        features = encode(self.encoder, batch, kept, self.patch_px)
        embedding, log_attention = self.attention.pool(features)
        return Output(self.head(embedding), log_attention)

    @torch.no_grad()
    def select(self, batch: Batch) -> Tensor:
        """Top-left pixels (B, keep, 2) of the patches of the grid that score best."""
        device = self.head.weight.device
        every = grid_corners(batch.images.shape, self.patch_px, self.grid_stride, device)
        self.reads = len(every)
        size = batch.images.shape[0]
        best = torch.empty((size, 0), dtype=torch.long, device=device)
        scores = torch.empty((size, 0), device=device)
        for chunk in torch.arange(len(every), device=device).split(self.chunk):
            features = encode(self.encoder, batch, every[chunk].expand(size, -1, -1), self.patch_px)
            best = torch.cat([best, chunk.expand(size, -1)], 1)
            scores = torch.cat([scores, self.attention(features)], 1)
            scores, winners = scores.topk(min(self.keep, scores.shape[1]))
            best = best.gather(1, winners)
        return every[best]

    def standardise(self, batch: Batch, generator: torch.Generator) -> None:
        """As `Classifier.standardise`, at places drawn evenly."""
        every = grid_corners(batch.images.shape, self.patch_px, self.grid_stride, generator.device)
        standardise_evenly(self.encoder, batch, every, self.patch_px, generator)


class PerturbedTopK(Classifier):
    """The ``samples`` best cells of the low view, made differentiable by noise on the scores.

    With noise ``Z`` of ``perturbations`` draws, slot k of the output is the mean of the patches that came k-th in index
    order among the top of ``scores + noise * Z``. The gradient to the scores is that of perturbed optimisers (J.-B.
    Cordonnier et al., "Differentiable Patch Selection for Image Recognition", CVPR 2021; Berthet et al., 2020). At
    prediction and with ``noise = 0`` it is a plain top-k, whose scores learn nothing.
    """

    def __init__(
        self,
        encoder: PatchEncoder,
        classes: int,
        *,
        patch_px: int,
        attention: LowViewAttention,
        samples: int,
        noise: float,
        perturbations: int = 50,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.attention = attention
        self.head = nn.Linear(encoder.dim, classes)
        self.patch_px, self.samples, self.noise, self.perturbations = patch_px, samples, noise, perturbations
        self.reads = samples

    def forward(self, batch: Batch, generator: torch.Generator) -> Output:
        """Class logits; cells have scores, but there is no attention."""
        assert batch.low is not None
        scores = self.attention(ink(batch.low, batch.colours))
        places = cell_corners(batch, self.patch_px, scores.shape[1:], self.attention.stride).flatten(0, 1)
        scores = standard(scores.flatten(1))
        if self.training and self.noise > 0:
            shape = (len(scores), self.perturbations, scores.shape[1])
            z = torch.randn(shape, generator=generator, device=scores.device)
            shares = perturbed_shares(scores, z, self.noise, self.samples)
            # cells that never came first anywhere need not be read
            read = (shares > 0).any(1)
            width = int(read.sum(1).max())
            cells = read.float().topk(width).indices  # (B, R)
            shares = shares.gather(2, cells.unsqueeze(1).expand(-1, self.samples, -1))
            patches = ink(read_patches(batch.images, places[cells], self.patch_px), batch.colours)
            mixed = torch.einsum("bkr,brchw->bkchw", shares, patches).flatten(0, 1)
        else:
            cells = scores.topk(min(self.samples, scores.shape[1])).indices
            mixed = patch_ink(batch, places[cells], self.patch_px)
        features = unit(self.encoder(mixed)).reshape(len(scores), -1, self.encoder.dim)
        return Output(self.head(LOGIT_SCALE * features.mean(1)))

    def standardise(self, batch: Batch, generator: torch.Generator) -> None:
        """As `Classifier.standardise`, at places drawn evenly."""
        assert batch.low is not None
        rows, cols = (-(-n // self.attention.stride) for n in batch.low.shape[1:3])
        places = cell_corners(batch, self.patch_px, (rows, cols), self.attention.stride).flatten(0, 1)
        standardise_evenly(self.encoder, batch, places, self.patch_px, generator)


def standard(scores: Tensor) -> Tensor:
    """Scores (B, K) scaled to the range of 0 to 1, so that one size of noise fits all images."""
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    return (scores - low) / (high - low + 1e-6)


def perturbed_shares(scores: Tensor, z: Tensor, sigma: float, k: int) -> Tensor:
    """Share of the noisy draws in which each cell took each slot: scores (B, K), noise (B, S, K) -> (B, k, K)."""
    shares: Tensor = _Perturbed.apply(scores, z, sigma, k)  # type: ignore[no-untyped-call]
    return shares


class _Perturbed(torch.autograd.Function):
    """`perturbed_shares` with the gradient of perturbed optimisers."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, z: Tensor, sigma: float, k: int) -> Tensor:
        top = (scores.unsqueeze(1) + sigma * z).topk(k).indices.sort(2).values  # (B, S, k), in index order
        ctx.save_for_backward(top, z)
        ctx.sigma = sigma
        shares = scores.new_zeros(len(scores), k, scores.shape[1])
        return (
            shares.scatter_add_(2, top.transpose(1, 2), torch.full_like(top.transpose(1, 2), 1.0, dtype=scores.dtype))
            / z.shape[1]
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        top, z = ctx.saved_tensors
        # of each draw: the gradient along what it selected, times its noise
        along = gradient.gather(2, top.transpose(1, 2)).sum(1)  # (B, S)
        return torch.einsum("bs,bsc->bc", along, z) / (ctx.sigma * z.shape[1]), None, None, None
