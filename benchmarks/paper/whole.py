"""The compared models that read every pixel: a full CNN, and gated MIL over all patches; how they are trained.

They are no part of the product, which never holds an image. Each is called as ``model(batch, generator)`` and prepared
once by ``model.standardise``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.paper.config import Networks, Row, Training
from benchmarks.paper.layers import Convolutions, GatedAttention, grid_corners, ink, read_patches
from stages.sampling.estimate import entropy


@dataclass(frozen=True, slots=True)
class Batch:
    """Images (B, H, W, C) uint8, and (B, C, C) that is multiplied to every pixel's ink, or None."""

    images: Tensor
    colours: Tensor | None = None


class Source(Protocol):
    """Images by number; with a generator they come augmented."""

    def __call__(self, items: Sequence[int], generator: torch.Generator | None) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Output:
    """Class logits of a batch (B, classes); log attention (B, K) over the patches that were read, if there is any."""

    logits: Tensor
    log_attention: Tensor | None = None


class FullCNN(nn.Module):
    """The encoder's convolutions over the whole image, the mean over all of it, a linear head."""

    reads: int | None = None

    def __init__(self, encoder: Convolutions, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, classes)

    def forward(self, batch: Batch, generator: torch.Generator) -> Output:
        """Class logits of a batch of images."""
        return Output(self.head(self.encoder(ink(batch.images, batch.colours))))

    def standardise(self, batch: Batch, generator: torch.Generator) -> None:
        """Set the scale of the features from training images, once, before training."""
        self.encoder.standardise(ink(batch.images))


class GatedMIL(nn.Module):
    """Gated attention over all patches of a grid, or a random ``share`` of them: ``softmax(score(f)) . f``, then a
    linear head (Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018).

    Args:
        shared: compute the convolutions that overlapping patches share once for the whole image, with the same result;
            only for all patches, and a grid stride that is a multiple of the convolutions'.
    """

    def __init__(
        self,
        encoder: Convolutions,
        classes: int,
        *,
        patch_px: int,
        grid_stride: int,
        share: float = 1.0,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if shared and (share < 1 or grid_stride % Convolutions.stride):
            raise ValueError(
                f"shared convolutions need all patches and a grid stride that is a multiple of {Convolutions.stride}, "
                f"found a share of {share} and a stride of {grid_stride}"
            )
        self.encoder = encoder
        self.attention = GatedAttention(encoder.dim)
        self.head = nn.Linear(encoder.dim, classes)
        self.patch_px, self.grid_stride, self.share, self.shared = patch_px, grid_stride, share, shared
        self.reads: int | None = None

    def corners(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Top-left pixels (B, N, 2) of the patches that are read."""
        every = grid_corners(images.shape, self.patch_px, self.grid_stride, generator.device)
        self.reads = max(1, round(self.share * len(every)))
        if self.reads == len(every):
            return every.expand(len(images), -1, -1)
        shuffled = torch.rand(len(images), len(every), generator=generator, device=generator.device).argsort(1)
        return every[shuffled[:, : self.reads]]

    def forward(self, batch: Batch, generator: torch.Generator) -> Output:
        """Class logits, and the log attention over the patches that were read."""
        corners = self.corners(batch.images, generator)
        if self.shared:
            y, x = corners[0, 0].tolist()
            features = self.encoder.windows(
                ink(batch.images[:, y:, x:], batch.colours), self.patch_px, self.grid_stride
            )
        else:
            patches = ink(read_patches(batch.images, corners, self.patch_px), batch.colours)
            features = self.encoder(patches.flatten(0, 1)).reshape(*corners.shape[:2], -1)
        log_attention = self.attention(features).log_softmax(1)
        return Output(self.head(torch.einsum("bn,bnd->bd", log_attention.exp(), features)), log_attention)

    def standardise(self, batch: Batch, generator: torch.Generator) -> None:
        """Set the scale of the features from training images, once, before training."""
        patches = read_patches(batch.images, self.corners(batch.images, generator), self.patch_px)
        self.encoder.standardise(ink(patches).flatten(0, 1))


Whole = FullCNN | GatedMIL


def build_whole(row: Row, networks: Networks, *, seed: int, shared: bool = True) -> Whole:
    """Make a row's model with seeded weights.

    Args:
        shared: MIL over all patches computes the convolutions that they share once, with the same result.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cnn = row.kind in ("cnn", "half")
        encoder = Convolutions(
            channels=networks.channels, widths=networks.widths, pool="mean" if cnn else networks.pool
        )
        if cnn:
            return FullCNN(encoder, networks.classes)
        return GatedMIL(
            encoder,
            networks.classes,
            patch_px=networks.patch_px,
            grid_stride=networks.grid_stride,
            share=row.share,
            shared=shared and row.share == 1,
        )


def fit_whole(
    model: Whole,
    source: Source,
    items: Sequence[int],
    labels: Tensor,
    training: Training,
    *,
    seed: int,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> float:
    """Train ``model`` in place on images ``items`` with class indices ``labels`` (of the same length).

    AdamW with a linear rise of the rate over the first tenth, then half a cosine down to 0; the weights are means over
    the last ``training.average`` of the steps. Returns the mean cross-entropy of the last epoch.
    """
    shuffling = torch.Generator().manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    model.to(device).train()
    some = torch.randperm(len(items), generator=shuffling)[:16].tolist()
    model.standardise(source([items[i] for i in some], None), generator)
    rate = training.learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=training.weight_decay, fused=True)
    total = training.epochs * math.ceil(len(items) / training.batch_size)
    mean = [torch.zeros_like(p) for p in model.parameters()]
    step, averaged, loss_of_epoch = 0, 0, math.nan
    for epoch in range(training.epochs):
        losses = []
        for chosen in torch.randperm(len(items), generator=shuffling).split(training.batch_size):
            optimizer.param_groups[0]["lr"] = rate * _schedule(step, total)
            batch = source([items[i] for i in chosen.tolist()], shuffling)
            error, loss = loss_of(model, batch, labels[chosen].to(device), generator, training)
            take_step(model, loss, optimizer, training)
            losses.append(error.detach())
            step += 1
            if step > (1 - training.average) * total:
                averaged += 1
                with torch.no_grad():
                    for one, p in zip(mean, model.parameters(), strict=True):
                        one.lerp_(p, 1 / averaged)
        loss_of_epoch = float(torch.stack(losses).mean())
        say(f"epoch {epoch + 1}/{training.epochs}: loss {loss_of_epoch:.3f}")
    if averaged:
        with torch.no_grad():
            for one, p in zip(mean, model.parameters(), strict=True):
                p.copy_(one)
    return loss_of_epoch


def loss_of(
    model: Whole, batch: Batch, labels: Tensor, generator: torch.Generator, training: Training
) -> tuple[Tensor, Tensor]:
    """A batch's cross-entropy, and the loss: that minus ``entropy_weight`` times the mean entropy of the attention."""
    output: Output = model(batch, generator)
    error = functional.cross_entropy(output.logits, labels)
    if training.entropy_weight and output.log_attention is not None:
        return error, error - training.entropy_weight * entropy(output.log_attention).mean()
    return error, error


def take_step(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, training: Training) -> None:
    """One step of the optimiser on a loss."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
    optimizer.step()


@torch.no_grad()
def predict_whole(
    model: Whole,
    source: Source,
    items: Sequence[int],
    *,
    seed: int,
    batch_size: int = 10,
    draws: int = 1,
    augmented: bool = False,
    device: str = "cpu",
) -> Tensor:
    """Class probabilities (len(items), classes), from logits averaged over ``draws`` passes, each of which sees the
    images augmented anew if they are ``augmented``."""
    generator = torch.Generator(device).manual_seed(seed)
    augmenting = torch.Generator().manual_seed(seed) if augmented else None
    model.to(device).eval()
    found = []
    for chosen in torch.arange(len(items)).split(batch_size):
        some = [items[i] for i in chosen.tolist()]
        logits = torch.stack([model(source(some, augmenting), generator).logits for _ in range(draws)]).mean(0)
        found.append(logits.softmax(1).cpu())
    return torch.cat(found)


def _schedule(step: int, total: int) -> float:
    rise = max(1, total // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
