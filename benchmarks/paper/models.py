"""The compared models, all on one patch encoder: full CNN, gated MIL, attention sampling, two kinds of selection.

Each is a `Classifier`: called as ``model(batch, generator) -> Output``, prepared once by ``model.standardise``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.paper.layers import (
    Batch,
    Classifier,
    GatedAttention,
    LowViewAttention,
    Output,
    PatchEncoder,
    PatchReader,
    grid_corners,
    ink,
    read_patches,
)
from stages.encoder.patch_encoder import unit
from stages.sampling.draw import draw
from stages.sampling.estimate import expectation, smooth
from stages.sampling.walk import hilbert_order

LOGIT_SCALE = 10.0
"""Of unit-length embeddings, so that the head's weights need not grow large before a prediction can be sure."""


class FullCNN(Classifier):
    """The encoder's convolutions over the whole image, the mean over all of it, a linear head."""

    def __init__(self, encoder: PatchEncoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, classes)

    def forward(self, batch: Batch, generator: torch.Generator) -> Output:
        """Class logits of a batch of images in memory."""
        assert isinstance(batch.images, Tensor)
        return Output(self.head(self.encoder(ink(batch.images, batch.colours))))

    def standardise(self, batch: Batch, generator: torch.Generator) -> None:
        """As `Classifier.standardise`."""
        assert isinstance(batch.images, Tensor)
        self.encoder.standardise(ink(batch.images))


class GatedMIL(Classifier):
    """Gated attention over all patches of a grid, or a random ``share`` of them: ``softmax(score(f)) . f``, then a
    linear head (Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018).

    Args:
        shared: compute the convolutions that overlapping patches share once for the whole image, with the same result;
            only for all patches, images in memory, and a grid stride that is a multiple of the encoder's.
    """

    def __init__(
        self,
        encoder: PatchEncoder,
        classes: int,
        *,
        patch_px: int,
        grid_stride: int,
        share: float = 1.0,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if shared and (share < 1 or grid_stride % encoder.stride):
            raise ValueError(
                f"shared convolutions need all patches and a grid stride that is a multiple of {encoder.stride}, "
                f"found a share of {share} and a stride of {grid_stride}"
            )
        self.encoder = encoder
        self.attention = GatedAttention(encoder.dim)
        self.head = nn.Linear(encoder.dim, classes)
        self.patch_px, self.grid_stride, self.share, self.shared = patch_px, grid_stride, share, shared

    def corners(self, images: Tensor | PatchReader, generator: torch.Generator) -> Tensor:
        """Top-left pixels (B, N, 2) of the patches that are read."""
        every = grid_corners(images.shape, self.patch_px, self.grid_stride, generator.device)
        count = max(1, round(self.share * len(every)))
        self.reads = count
        if count == len(every):
            return every.expand(images.shape[0], -1, -1)
        shuffled = torch.rand(images.shape[0], len(every), generator=generator, device=generator.device).argsort(1)
        return every[shuffled[:, :count]]

    def forward(self, batch: Batch, generator: torch.Generator) -> Output:
        """Class logits, and the log attention over the patches that were read."""
        corners = self.corners(batch.images, generator)
        if self.shared:
            assert isinstance(batch.images, Tensor)
            first = int(corners[0, 0, 0]), int(corners[0, 0, 1])
            image = ink(batch.images[:, first[0] :, first[1] :], batch.colours)
            features = self.encoder.windows(image, self.patch_px, self.grid_stride)
        else:
            features = encode(self.encoder, batch, corners, self.patch_px)
        embedding, log_attention = self.attention.pool(features)
        return Output(self.head(embedding), log_attention)

    def standardise(self, batch: Batch, generator: torch.Generator) -> None:
        """As `Classifier.standardise`."""
        self.encoder.standardise(patch_ink(batch, self.corners(batch.images, generator), self.patch_px))


class AttentionSampling(Classifier):
    """Attention over the low view, a few cells drawn from it, their patches encoded: ``head(10 * sum w a f)``
    (Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019).

    Args:
        attention: over the low view; None for uniform attention over the cells that `LowViewAttention` would have.
        samples: cells to draw; None reads every cell (exhaustive, exact).
        scheme: how they are drawn, one of `stages.sampling.schemes.SCHEMES`.
        smoothing: share of uniform attention that is mixed in.
        cell_stride: of the uniform attention, in pixels of the low view.
    """

    def __init__(
        self,
        encoder: PatchEncoder,
        classes: int,
        *,
        patch_px: int,
        attention: LowViewAttention | None,
        samples: int | None,
        scheme: str = "systematic",
        smoothing: float = 1e-4,
        cell_stride: int = 4,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.attention = attention
        self.head = nn.Linear(encoder.dim, classes)
        self.patch_px, self.samples, self.scheme = patch_px, samples, scheme
        self.smoothing = smoothing
        self.stride = attention.stride if attention else cell_stride
        self.reads = samples
        self._orders: dict[tuple[int, int, str], Tensor] = {}

    def log_attention(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log attention (B, rows, cols), and the top-left pixel of each cell's patch (rows, cols, 2), as (y, x)."""
        low = batch.low
        assert low is not None, "attention sampling looks at a low view: give the batch one"
        if self.attention is not None:
            logits = self.attention(ink(low, batch.colours))
        else:
            logits = low.new_zeros((len(low), *(-(-n // self.stride) for n in low.shape[1:3])), dtype=torch.float32)
        log_attention = smooth(logits.flatten(1).log_softmax(1), self.smoothing).reshape(logits.shape)
        return log_attention, cell_corners(batch, self.patch_px, logits.shape[1:], self.stride)

    def forward(self, batch: Batch, generator: torch.Generator) -> Output:
        """Class logits from one draw, and the log attention over all cells."""
        grid, places = self.log_attention(batch)
        log_attention = grid.flatten(1)
        n = log_attention.shape[1] if self.samples is None else self.samples
        drawn = draw(
            log_attention.detach(), n, scheme=self.scheme, generator=generator, order=self._order(*grid.shape[1:])
        )
        self.reads = drawn.cells.shape[1]
        features = unit(encode(self.encoder, batch, places.flatten(0, 1)[drawn.cells], self.patch_px))
        embedding = expectation(log_attention, features, drawn)
        return Output(self.head(LOGIT_SCALE * embedding), log_attention)

    def standardise(self, batch: Batch, generator: torch.Generator) -> None:
        """As `Classifier.standardise`, at places drawn evenly."""
        with torch.no_grad():
            _, places = self.log_attention(batch)
        standardise_evenly(self.encoder, batch, places.flatten(0, 1), self.patch_px, generator)

    def _order(self, rows: int, cols: int) -> Tensor:
        key = (rows, cols, str(self.head.weight.device))
        if key not in self._orders:
            self._orders[key] = hilbert_order(rows, cols).to(self.head.weight.device)
        return self._orders[key]


def standardise_evenly(
    encoder: PatchEncoder, batch: Batch, corners: Tensor, px: int, generator: torch.Generator
) -> None:
    """Standardise an encoder on 32 patches of each image, drawn evenly from those with these corners (N, 2)."""
    some = torch.randint(len(corners), (batch.images.shape[0], 32), generator=generator, device=corners.device)
    encoder.standardise(patch_ink(batch, corners[some], px))


def cell_corners(batch: Batch, px: int, cells: tuple[int, ...], stride: int) -> Tensor:
    """Top-left pixel of each cell's patch, (rows, cols, 2) as (y, x).

    A cell's patch is centred on ``(stride * i + 1/2) * scale``, with the exact scale of the low view. A patch that
    would reach past the image is moved inside.
    """
    assert batch.low is not None
    axes = []
    for size, small, count in zip(batch.images.shape[1:3], batch.low.shape[1:3], cells, strict=True):
        centre = (stride * torch.arange(count, device=batch.low.device) + LowViewAttention.offset) * size / small
        axes.append((centre - px / 2).round().long().clamp(0, size - px))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def patch_ink(batch: Batch, corners: Tensor, px: int) -> Tensor:
    """Ink of the patches (B, N, 2) -> (B * N, C, px, px)."""
    return ink(read_patches(batch.images, corners, px), batch.colours).flatten(0, 1)


def encode(encoder: PatchEncoder, batch: Batch, corners: Tensor, px: int) -> Tensor:
    """Features (B, N, D) of the patches at ``corners`` (B, N, 2)."""
    features: Tensor = encoder(patch_ink(batch, corners, px))
    return features.reshape(*corners.shape[:2], -1)
