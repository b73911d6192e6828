"""Thumbnail -> attention over cells: a learned map and two that need no training, all with the same call."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stages.geometry import Raster
from stages.tissue.foreign import chroma

BLACK = 1 / 8
"""Of white: where no colour is brighter, no stain can be told. A dark nucleus still leaves a quarter of the blue."""

GREY = (0.05, 0.15)
"""Chroma up to which a colour is no stain's, and from which it is; a nucleus has 0.2 to 0.3."""

STRIP = 2**18
"""Thumbnail pixels that are looked at together where nothing is learned: memory is theirs, however large the slide."""

BLOCK_PX = 96
"""Side of the squares that are looked at where there is tissue: larger ones take in more glass, smaller ones more of
what lies around them, up to 14 pixels, twice."""

TOGETHER = 2**17
"""Pixels of such squares that are looked at together where no gradients are kept: half of it takes a fifth longer,
twice of it no less time, and twice the memory."""


class ThumbnailAttention(nn.Module):
    """A small convolutional network from a thumbnail to one logit per cell of ``cell_px`` thumbnail pixels.

    3 x 3 convolutions alternate with 2 x 2 means while ``cell_px`` can be halved; the rest is averaged, and a linear
    map of it is the logit. The thumbnail is extended by background as far as the receptive fields reach, so that the
    last cells cover a remainder too and the slide's rim is no special case. At the start the map is uniform.

    A part of a slide has no background around it: with ``surrounded`` an image is of whole cells and already holds the
    ``around`` pixels on every side that its receptive fields reach.
    """

    def __init__(self, *, cell_px: int, channels: tuple[int, ...] = (8, 16, 16), surrounded: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        left = cell_px
        for before, after in zip((3, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(before, after, 3), nn.ReLU(inplace=True)]
            if left % 2 == 0:
                layers.append(nn.AvgPool2d(2))
                left //= 2
        self.layers = nn.Sequential(*layers, nn.AvgPool2d(left))
        self.logit = nn.Conv2d(channels[-1], 1, 1)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)  # type: ignore[arg-type]
        self.cell_px = cell_px
        self.channels = channels[-1]
        self.stride, self.field = _receptive_field(self.layers)
        self.margin = (self.field - cell_px) // 2  # as far beyond the cell on the left as on the right
        self.around = self.margin if surrounded else 0

    def forward(self, images: Tensor) -> Tensor:
        """Images (..., 3, H, W), uint8 or in 0 to 1 -> logits (..., rows, cols)."""
        return self.logits(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the logits of images (..., 3, H, W) are made from: (..., ``channels``, rows, cols)."""
        if self.around:
            return self._layers(images)
        return self._layers(functional.pad(images, self._beyond(images), value=_white(images)))

    def features_of(self, thumbnails: Sequence[Tensor], marked: Sequence[Tensor]) -> list[Tensor]:
        """`features` of thumbnails (3, H, W) of any sizes in the cells ``marked`` of each (rows, cols) bool; elsewhere
        the same or 0.

        Only squares of `BLOCK_PX` that cover these are looked at, all together, or few at a time where no gradients are
        kept: memory is theirs, however large the slide is.
        """
        side = max(1, BLOCK_PX // self.cell_px)
        corners = [_cover(cells.cpu().numpy(), side) for cells in marked]
        squares = [(rgb, *corner) for rgb, own in zip(thumbnails, corners, strict=True) for corner in own]
        some = len(squares) if torch.is_grad_enabled() else max(1, TOGETHER // (side * self.cell_px) ** 2)
        parted = [squares[i : i + some] for i in range(0, len(squares), some or 1)]
        looks = [self._layers(torch.stack([self._square(*one, side) for one in part])) for part in parted]
        found = torch.cat(looks) if looks else self.logit.weight.new_zeros((0, self.channels, side, side))
        parts = found.split([len(own) for own in corners])
        each = zip(parts, corners, marked, strict=True)
        return [_placed(part, own, cells.shape) for part, own, cells in each]

    def _square(self, thumbnail: Tensor, row: int, column: int, side: int) -> Tensor:
        """The square of ``side`` x ``side`` cells at a cell, (3, S, S), with what its receptive fields reach."""
        height, width = thumbnail.shape[-2:]
        reach = (side - 1) * self.stride + self.field
        top, left = row * self.stride - self.margin, column * self.stride - self.margin
        part = thumbnail[:, max(0, top) : top + reach, max(0, left) : left + reach]
        beyond = max(0, -left), max(0, left + reach - width), max(0, -top), max(0, top + reach - height)
        return functional.pad(part, beyond, value=_white(thumbnail))

    def _beyond(self, images: Tensor) -> tuple[int, int, int, int]:
        """Pixels of background beyond the left, right, top and bottom of images that their cells' fields reach."""
        height, width = images.shape[-2:]
        rows, columns = (-(-n // self.cell_px) for n in (height, width))
        reach = self.field - self.margin
        below, right = (rows - 1) * self.stride + reach - height, (columns - 1) * self.stride + reach - width
        return self.margin, right, self.margin, below

    def _layers(self, images: Tensor) -> Tensor:
        """Features of images with all that their receptive fields reach, from how much these are darker than white, 0
        to 4; channels last, which takes half the time."""
        ink = (1 - _in_0_to_1(images)).mul_(4)
        if ink.ndim == 4:
            ink = ink.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.layers(ink)
        return features

    def logits(self, features: Tensor) -> Tensor:
        """`features` -> logits."""
        logits: Tensor = self.logit(features).squeeze(-3)
        return logits

    def raster(self, thumbnail: Raster) -> Raster:
        """The cells' places: cell ``i`` is centred on its receptive field, ``stride * i + field / 2 - margin``."""
        return thumbnail.pooled(self.stride, self.field / 2 - self.margin, *_cells(thumbnail, self.cell_px))


class HematoxylinAttention(nn.Module):
    """More attention where there is more hematoxylin, by colour deconvolution (Ruifrok & Johnston 2001); no training.

    ``logit = mean hematoxylin density of the cell / temperature``.
    """

    def __init__(self, *, cell_px: int, temperature: float = 0.02) -> None:
        super().__init__()
        self.cell_px = cell_px
        self.temperature = temperature

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Thumbnail (3, H, W), uint8 or in 0 to 1 -> logits (rows, cols); strip by strip."""
        strips = [thumbnail[:, a * self.cell_px : b * self.cell_px] for a, b in _strips(thumbnail, self.cell_px)]
        density = [cell_means(_hematoxylin(_in_0_to_1(strip)), self.cell_px) for strip in strips]
        return torch.cat(density) / self.temperature

    def raster(self, thumbnail: Raster) -> Raster:
        """The cells' places."""
        return _cell_raster(thumbnail, self.cell_px)


class GrainAttention(nn.Module):
    """More attention where hematoxylin varies more within a cell, as where nuclei lie close; no training.

    ``logit = standard deviation of hematoxylin density in the cell / temperature``: for pixels of 2 to 5 um, of which
    a nucleus covers a few; a thumbnail's pixels average over many.
    """

    def __init__(self, *, cell_px: int, temperature: float = 0.001) -> None:
        super().__init__()
        self.cell_px = cell_px
        self.temperature = temperature

    def forward(self, image: Tensor) -> Tensor:
        """Image (3, H, W) in 0 to 1 -> logits (rows, cols)."""
        density = _hematoxylin(image).double()
        mean = cell_means(density, self.cell_px)
        variance = (cell_means(density.square(), self.cell_px) - mean.square()).clamp(min=0)
        return (variance.sqrt() / self.temperature).to(image.dtype)


class UniformAttention(nn.Module):
    """The same attention everywhere on tissue; no training."""

    def __init__(self, *, cell_px: int) -> None:
        super().__init__()
        self.cell_px = cell_px

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Thumbnail (3, H, W) -> zeros (rows, cols)."""
        return torch.zeros(tuple(-(-n // self.cell_px) for n in thumbnail.shape[1:]), device=thumbnail.device)

    def raster(self, thumbnail: Raster) -> Raster:
        """The cells' places."""
        return _cell_raster(thumbnail, self.cell_px)


Attention = ThumbnailAttention | HematoxylinAttention | UniformAttention


def build_attention(name: str, *, cell_px: int) -> Attention:
    """Make the attention called ``learned``, ``hematoxylin`` or ``uniform``.

    Raises:
        ValueError: another name.
    """
    kinds = {"learned": ThumbnailAttention, "hematoxylin": HematoxylinAttention, "uniform": UniformAttention}
    if name not in kinds:
        raise ValueError(f"unknown attention {name!r}; expected one of {', '.join(kinds)}")
    attention: Attention = kinds[name](cell_px=cell_px)
    return attention


def tissue_cells(mask: Tensor, *, cell_px: int, min_fraction: float = 0.1) -> Tensor:
    """Reduce a tissue mask (H, W) to cells (rows, cols): at least ``min_fraction`` of their pixels on tissue.

    Pixels beyond the thumbnail count as background. Where no cell has enough but there is tissue, the fullest stands.
    """
    fraction = cell_shares(mask, cell_px, torch.float32)
    return fraction >= (fraction.max().clamp(max=min_fraction) if mask.any() else min_fraction)


def masked_log_softmax(logits: Tensor, cells: Tensor) -> Tensor:
    """``log a_i = l_i - log sum_j exp l_j`` over the marked cells, minus infinity elsewhere; both (rows, cols).

    Raises:
        ValueError: no cell is marked, or the shapes differ.
    """
    if logits.shape != cells.shape:
        raise ValueError(f"expected one logit per cell, found logits {tuple(logits.shape)}, cells {tuple(cells.shape)}")
    if not cells.any():
        raise ValueError("expected at least one tissue cell, found none; a slide without tissue has no attention")
    return functional.log_softmax(logits.masked_fill(~cells, -math.inf).flatten(), dim=0).reshape(logits.shape)


def _cells(thumbnail: Raster, cell_px: int) -> tuple[int, int]:
    """Columns and rows of cells that cover a thumbnail."""
    return -(-thumbnail.width // cell_px), -(-thumbnail.height // cell_px)


def _cell_raster(thumbnail: Raster, cell_px: int) -> Raster:
    return thumbnail.pooled(cell_px, cell_px / 2, *_cells(thumbnail, cell_px))


def cell_means(values: Tensor, cell_px: int) -> Tensor:
    """Mean of (H, W) over the cells (rows, cols); beyond the edge counts as 0."""
    height, width = values.shape
    padded = functional.pad(values, (0, -width % cell_px, 0, -height % cell_px))
    return functional.avg_pool2d(padded[None, None], cell_px)[0, 0]


def cell_shares(mask: Tensor, cell_px: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """`cell_means` of a mask (H, W) bool, counted strip by strip."""
    pixels = mask.cpu().numpy().view(np.uint8)
    height, width = pixels.shape
    counts = np.empty((-(-height // cell_px), -(-width // cell_px)), np.int64)
    columns = np.arange(0, width, cell_px)
    for row in range(len(counts)):
        lines = pixels[row * cell_px : (row + 1) * cell_px].sum(0, dtype=np.int64)
        counts[row] = np.add.reduceat(lines, columns)
    return torch.from_numpy(counts).to(mask.device, dtype) / cell_px**2


def _strips(image: Tensor, cell_px: int) -> list[tuple[int, int]]:
    """The rows of an image's cells, (..., H, W), as runs of equal length: (first, end) of each."""
    height, width = image.shape[-2:]
    rows = -(-height // cell_px)
    count = max(1, min(rows, height * width // STRIP))
    return [(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def _in_0_to_1(image: Tensor) -> Tensor:
    return image / 255 if image.dtype == torch.uint8 else image


def _white(images: Tensor) -> int:
    return 255 if images.dtype == torch.uint8 else 1


def _cover(cells: NDArray[np.bool_], side: int) -> list[tuple[int, int]]:
    """First row and column of squares of ``side`` x ``side`` cells, none over another, that cover the marked ones."""
    found, top = [], 0
    while (rows := np.flatnonzero(cells[top:].any(1))).size:
        top, end = top + int(rows[0]), 0
        for column in np.flatnonzero(cells[top : top + side].any(0)).tolist():
            if column >= end:
                found.append((top, column))
                end = column + side
        top += side
    return found


def _placed(found: Tensor, corners: Sequence[tuple[int, int]], shape: Sequence[int]) -> Tensor:
    """Values (K, C, side, side) of squares at their places among (rows, cols) cells, (C, rows, cols); 0 elsewhere."""
    count, channels, side, _ = found.shape
    values = functional.pad(found.transpose(0, 1).flatten(1), (1, 0))
    source = np.zeros((shape[0] + side, shape[1] + side), np.int64)
    squares = 1 + np.arange(count * side**2).reshape(count, side, side)
    for (row, column), square in zip(corners, squares, strict=True):
        source[row : row + side, column : column + side] = square
    where = torch.from_numpy(source[: shape[0], : shape[1]].ravel()).to(found.device)
    return values.index_select(1, where).view(channels, *shape)


def _hematoxylin(image: Tensor) -> Tensor:
    """Hematoxylin density (H, W) of an image (3, H, W) in 0 to 1.

    Grey and black have none: unmixing would find up to nine times a dark nucleus's there, and it is dirt, ink, pigment,
    a shadow or the scan's border. Chroma weighs it from 0 to 1 within `GREY`.
    """
    from skimage.color import rgb2hed  # seldom wanted

    pixels = image.detach().cpu()
    # what eight bits can tell: to rgb2hed a 0 is thousands of times darker than a 1
    stains = rgb2hed(pixels.clamp(min=1 / 255).permute(1, 2, 0).numpy())
    density = torch.from_numpy(np.ascontiguousarray(stains[..., 0], np.float32))
    colour = torch.from_numpy(np.hypot(*chroma(-pixels.clamp(min=1 / 255).log().numpy())))
    density *= ((colour - GREY[0]) / (GREY[1] - GREY[0])).clamp(0, 1)
    return density.masked_fill(pixels.amax(0) < BLACK, 0).to(image.device)


def _receptive_field(layers: nn.Sequential) -> tuple[int, int]:
    """Input pixels between neighbouring outputs, and input pixels that one output sees, across unpadded layers."""
    stride, field = 1, 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.AvgPool2d):
            kernel, step = (n if isinstance(n, int) else n[0] for n in (layer.kernel_size, layer.stride))
            field += (kernel - 1) * stride
            stride *= step
    return stride, field
