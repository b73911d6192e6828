"""The paper's images as the product sees them, and its model trained on them: nothing here attends, draws or encodes.

An image is a slide all of which is tissue, in abstract units: one of its pixels is one unit. What the thumbnail of a
slide is, the low view is here. A patch lies about the centre of its cell; where the task needs patches that overlap,
they are larger than a cell, which no slide's are.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.paper.config import Networks, Row, Sight, Training
from benchmarks.paper.layers import Convolutions, ink
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from pipeline.train.fit import fit
from stages.encoder.patch_encoder import PatchEncoder

Views = Callable[[int, torch.Generator | None], View]
"""Images by number; with a generator they come augmented."""


def shrunk(pixels: NDArray[np.uint8], low_px: int) -> NDArray[np.uint8]:
    """Exact area means of an image (H, W, 3), so that its longer side has ``low_px`` pixels."""
    scale = low_px / max(pixels.shape[:2])
    height, width = (round(n * scale) for n in pixels.shape[:2])
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def view_of(
    low: NDArray[np.uint8],
    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
    sight: Sight,
    scale: tuple[float, float],
) -> View:
    """A view of one image.

    Args:
        low: the low view (h, w, 3).
        read: top-left pixels (N, 2) of patches, as (y, x) -> patches (N, P, P, 3).
        sight: cells and patches.
        scale: pixels of the image along one of the low view, as (y, x).
    """
    rows, columns = (-(-n // sight.cell_px) for n in low.shape[:2])

    def patches(cells: NDArray[np.int64]) -> NDArray[np.uint8]:
        return read(corners_of(np.stack(np.divmod(cells, columns), -1), sight, scale))

    return View(np.ascontiguousarray(low), np.ones((rows, columns), bool), patches)


def corners_of(cells: NDArray[np.int64], sight: Sight, scale: tuple[float, float]) -> NDArray[np.int64]:
    """Top-left pixels (N, 2) of the patches about cells (N, 2), as (row, column): ``(i + 1/2) cell - patch / 2``."""
    centres = (cells + 0.5) * sight.cell_px * np.array(scale)
    return np.rint(centres - sight.patch_px / 2).astype(np.int64)


def padded(pixels: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) in a white margin of ``px``, for `window_reader`."""
    return np.pad(pixels, ((px, px), (px, px), (0, 0)), constant_values=255)


def window_reader(framed: NDArray[np.uint8], px: int) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]]:
    """Reads patches of ``px`` pixels at top-left pixels (N, 2) of the image without its margin of ``px``."""
    windows = np.lib.stride_tricks.sliding_window_view(framed, (px, px), (0, 1))

    def read(corners: NDArray[np.int64]) -> NDArray[np.uint8]:
        y, x = np.minimum(corners + px, np.array(windows.shape[:2]) - 1).T
        return np.ascontiguousarray(np.moveaxis(windows[y, x], 1, -1))

    return read


class InkConvolutions(nn.Module):
    """`Convolutions` as the body of the product's encoder: pixels (M, 3, P, P) of 0 to 255 -> (M, dim).

    Grey images are shown to the product as black on white, because white is what it holds for background.
    """

    def __init__(self, convolutions: Convolutions) -> None:
        super().__init__()
        self.convolutions = convolutions

    def forward(self, pixels: Tensor) -> Tensor:
        """(M, 3, P, P) -> (M, dim)."""
        if self.convolutions.channels == 1:
            pixels = 255 - pixels[:, :1]
        return self.convolutions.pooled(ink(pixels.movedim(1, -1)))


class EncoderOnInk(nn.Module):
    """The product's encoder, of colour images, on ink (M, 3, P, P) in place of pixels, for `contrast`."""

    def __init__(self, encoder: PatchEncoder) -> None:
        super().__init__()
        self.encoder, self.dim = encoder, encoder.dim

    def forward(self, x: Tensor) -> Tensor:
        """(M, 3, P, P) -> (M, dim)."""
        features: Tensor = self.encoder(self._pixels(x))
        return features

    def standardise(self, x: Tensor) -> None:
        """As the encoder's own."""
        self.encoder.standardise(self._pixels(x))

    def _pixels(self, x: Tensor) -> Tensor:
        return (256 * (-x).exp() - 1).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)


def build_sampler(row: Row, sight: Sight, networks: Networks, *, scale: float, seed: int) -> AttentionSampler:
    """The product's model with seeded weights.

    Args:
        scale: pixels of an image along one of its low view.
    """
    spec = ModelSpec(
        classes=tuple(str(i) for i in range(networks.classes)),
        attention_mpp=scale,
        patch_mpp=1.0,
        patch_px=round(sight.cell_px * scale),  # of a cell, which is what the model needs to know
        attention=row.attention,
        encoder="small",
        dim=networks.widths[-1],
        scheme=row.scheme,
        samples=row.samples or 1,
    )
    assert spec.cell_px == sight.cell_px
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AttentionSampler(spec)
        if sight.encoder == "convolutions":
            convolutions = Convolutions(channels=networks.channels, widths=networks.widths, pool=networks.pool)
            model.encoder = PatchEncoder(InkConvolutions(convolutions), spec.dim, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    return model


def train_sampler(
    model: SlideModel,
    views: Views,
    items: Sequence[int],
    labels: Sequence[int],
    training: Training,
    *,
    samples: int,
    seed: int,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    turn: bool = True,
    bags: Tensor | None = None,
) -> float:
    """Train in place by the product's own training, on augmented views of images ``items`` with class indices
    ``labels``; ``turn`` and ``bags`` as there. Returns the mean cross-entropy of the last epoch."""
    augmenting = torch.Generator().manual_seed(seed)
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        say(line)

    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            lambda index: views(items[index], augmenting),
            torch.as_tensor(labels),
            checkpoint=Path(folder) / "training.ckpt",
            samples=samples,
            seed=seed,
            device=device,
            say=tell,
            turn=turn,
            bags=bags,
            **training.model_dump(exclude={"average"}),
        )
    told = re.search(r"loss ([\d.]+)", said[-1])
    assert told is not None
    return float(told[1])


def sampler_loss(
    model: AttentionSampler,
    views: Sequence[View],
    labels: Tensor,
    training: Training,
    *,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """The loss of one draw of a batch, as the product's training has it: for what a step of it costs."""
    found = model(views, samples=samples, generator=generator)
    return functional.cross_entropy(found.logits[:, 0], labels) - training.entropy_weight * found.entropies.mean()


@torch.no_grad()
def predict_sampler(
    model: SlideModel,
    views: Views,
    items: Sequence[int],
    *,
    samples: int,
    seed: int,
    draws: int = 1,
    augmented: bool = False,
    device: str = "cpu",
) -> Tensor:
    """Class probabilities (len(items), classes), from logits averaged over ``draws`` independent draws, each of which
    sees the image augmented anew if they are ``augmented``; the members of an ensemble speak with one voice."""
    model.to(device).eval()
    generator = torch.Generator(device).manual_seed(seed)
    augmenting = torch.Generator().manual_seed(seed) if augmented else None
    found = []
    for item in items:
        seen = [views(item, augmenting) for _ in range(draws)] if augmented else [views(item, None)] * draws
        logits = model(seen, samples=samples, generator=generator).logits.mean((0, 1))
        found.append(logits.softmax(0).cpu())
    return torch.stack(found)
