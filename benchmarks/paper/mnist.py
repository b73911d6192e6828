"""Megapixel MNIST: five handwritten digits and many noise strokes, lost in a large black image.

Three of the digits are of one class, the label; the other two are of other classes. The task is that of Katharopoulos &
Fleuret (ICML 2019) with 50 strokes in 1500 x 1500 pixels; this is a generator of our own, which differs in how a stroke
looks. Noise is drawn ``over`` the digits, as in their generator, or ``under`` them, as in that of iterative patch
selection (Bergner et al., ICLR 2023). Either way the whole square of what is drawn later replaces what was there: a
stroke over a digit hides part of it, a digit over a stroke is always whole.

Images are kept as small squares of disjoint ink, so one of 16 000 x 16 000 pixels takes 44 kB. Low view, patches and
dense pixels are computed from those, on any device; only the last costs more for a larger image.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BOX = 28
"""Pixels along the side of a digit and of a stroke's square."""
DIGITS = 5
SAME = 3
CLASSES = 10

Split = Literal["train", "val", "test"]
Noise = Literal["over", "under"]
SPLITS = get_args(Split)


@dataclass(frozen=True, slots=True)
class Digits:
    """Handwritten digits: images (n, 28, 28) uint8, white on black, and labels (n,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def load_digits(folder: Path, split: Split) -> Digits:
    """Read MNIST: its training digits but the last 10 000, those (``val``, to tune on), or its test digits.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not what its name says.
    """
    prefix = "t10k" if split == "test" else "train"
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    if images.shape[1:] != (BOX, BOX) or labels.shape != images.shape[:1]:
        raise ValueError(f"{folder}: expected n images of 28 x 28 and n labels, found {images.shape}, {labels.shape}")
    part = {"train": slice(None, -10_000), "val": slice(-10_000, None), "test": slice(None)}[split]
    return Digits(images[part], labels[part].astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Raises:
        ValueError: another type of number, or another length than the header says.
    """
    raw = gzip.decompress(path.read_bytes())
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: expected an IDX file of unsigned bytes, found one that begins with {raw[:4]!r}")
    start = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:start]) if len(raw) >= start else ()
    if len(raw) < start or len(raw) - start != int(np.prod(shape)):
        raise ValueError(f"{path}: expected {shape} bytes after its header, found {len(raw) - start}; is it cut short?")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


@dataclass(frozen=True, slots=True)
class SparseImages:
    """B black square images, with ink only in K small squares each.

    Attributes:
        side: pixels along an image's side.
        boxes: (B, K, 28, 28) uint8, ink. No pixel of an image is inked in two boxes. The first five are the digits,
            those of the label's class first.
        corners: (B, K, 2) int64, row and column of each box's first pixel.
        labels: (B,) int64.
    """

    side: int
    boxes: Tensor
    corners: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: Tensor | slice) -> SparseImages:
        return SparseImages(self.side, self.boxes[which], self.corners[which], self.labels[which])

    def to(self, device: torch.device | str) -> SparseImages:
        """The same on another device."""
        return SparseImages(self.side, *(t.to(device) for t in (self.boxes, self.corners, self.labels)))

    def low(self, view: int) -> Tensor:
        """Exact area means over ``view`` x ``view`` equal cells, which may cut pixels: (B, view, view, 1), 0 to 255."""
        scale = self.side / view
        touched = int(BOX / scale) + 2  # cells that a box can reach along a side
        first = (self.corners.double() / scale).floor().long()  # (B, K, 2)
        cell = first.unsqueeze(-1) + torch.arange(touched, device=first.device)  # (B, K, 2, touched)
        pixel = self.corners.unsqueeze(-1) + torch.arange(BOX, device=first.device)  # (B, K, 2, 28)
        begin = cell.unsqueeze(-1).double() * scale
        left = pixel.unsqueeze(-2).double()
        overlap = torch.minimum(begin + scale, left + 1) - torch.maximum(begin, left)
        share = (overlap.clamp(min=0) / scale).float()  # (B, K, 2, touched, 28): of each cell's side in each pixel
        means = share[:, :, 0] @ self.boxes.float() @ share[:, :, 1].transpose(-1, -2)
        # a margin takes what lies past the last cell, where the shares are 0
        wide = view + touched
        image = torch.arange(len(self), device=first.device)[:, None, None, None]
        index = (image * wide + cell[:, :, 0].unsqueeze(-1)) * wide + cell[:, :, 1].unsqueeze(-2)
        canvas = means.new_zeros(len(self) * wide * wide).index_add_(0, index.flatten(), means.flatten())
        return canvas.view(len(self), wide, wide, 1)[:, :view, :view]

    def patches(self, corners: Tensor, px: int) -> Tensor:
        """Patches whose first pixels are ``corners`` (B, N, 2): (B, N, px, px, 1) uint8, black beyond the image."""
        offset = self.corners.unsqueeze(1) - corners.unsqueeze(2)  # (B, N, K, 2): of each box in each patch
        meets = ((offset > -BOX) & (offset < px)).all(-1)
        image, patch, box = meets.nonzero(as_tuple=True)
        rows, cols = (offset[image, patch, box].unsqueeze(-1) + torch.arange(BOX, device=corners.device)).unbind(1)
        inside = ((rows >= 0) & (rows < px)).unsqueeze(2) & ((cols >= 0) & (cols < px)).unsqueeze(1)
        target = ((image * corners.shape[1] + patch)[:, None, None] * px + rows.unsqueeze(2)) * px + cols.unsqueeze(1)
        out = self.boxes.new_zeros(corners.shape[0] * corners.shape[1] * px * px)
        out.index_add_(0, target[inside], self.boxes[image, box][inside])  # disjoint ink: a sum never overflows
        return out.view(*corners.shape[:2], px, px, 1)

    def dense(self) -> Tensor:
        """All pixels: (B, side, side, 1) uint8."""
        reach = torch.arange(BOX, device=self.corners.device)
        rows, cols = (self.corners.unsqueeze(-1) + reach).unbind(2)  # (B, K, 28)
        image = torch.arange(len(self), device=reach.device)[:, None, None, None]
        index = (image * self.side + rows.unsqueeze(-1)) * self.side + cols.unsqueeze(-2)
        out = self.boxes.new_zeros(len(self) * self.side**2)
        return out.index_add_(0, index.flatten(), self.boxes.flatten()).view(len(self), self.side, self.side, 1)


def make_images(
    digits: Digits, split: Split, count: int, *, side: int, noise: Noise, strokes: int = 50, seed: int = 0
) -> SparseImages:
    """Make the first ``count`` images of a split; each depends on (seed, split, its index) and on no other.

    Args:
        digits: those of the split.
        split: keeps the layouts of training and test images apart, as their digits are.
        side: pixels along an image's side, at least 138, so that five digits always find room.
        noise: strokes ``over`` the digits or ``under`` them.

    Raises:
        ValueError: the side is too small, or the noise unknown.
    """
    if (side - BOX + 1) ** 2 <= (DIGITS - 1) * (2 * BOX - 1) ** 2:
        raise ValueError(f"five digits of {BOX} x {BOX} need an image side of at least 138, got {side}")
    if noise not in ("over", "under"):
        raise ValueError(f"unknown noise {noise!r}: expected 'over' or 'under' the digits")
    by_class = [np.flatnonzero(digits.labels == c) for c in range(CLASSES)]
    boxes = np.empty((count, DIGITS + strokes, BOX, BOX), np.uint8)
    corners = np.empty((count, DIGITS + strokes, 2), np.int64)
    labels = np.empty(count, np.int64)
    turn = np.arange(DIGITS + strokes)
    if noise == "under":
        turn[:DIGITS] += strokes + DIGITS
    for i in range(count):
        rng = np.random.default_rng([seed, SPLITS.index(split), i])
        labels[i] = rng.integers(CLASSES)
        others = rng.choice(np.delete(np.arange(CLASSES), labels[i]), DIGITS - SAME)
        classes = [labels[i]] * SAME + list(others)
        boxes[i, :DIGITS] = digits.images[[rng.choice(by_class[c]) for c in classes]]
        boxes[i, DIGITS:] = draw_strokes(rng, strokes)
        corners[i, :DIGITS] = _apart(rng, side)
        corners[i, DIGITS:] = rng.integers(side - BOX + 1, size=(strokes, 2))
        hide(boxes[i], corners[i], turn)
    return SparseImages(side, *(torch.from_numpy(array) for array in (boxes, corners, labels)))


def draw_strokes(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Two straight lines from rim to rim of a square, a pixel wide, of 80 to 100 % white: (count, 28, 28).

    They have about as much ink as a digit, but neither bends nor ends.
    """
    angle = rng.uniform(0, np.pi, (count, 2, 1, 1))
    shift = rng.uniform(-BOX / 4, BOX / 4, (count, 2, 1, 1))
    y, x = np.mgrid[:BOX, :BOX] - (BOX - 1) / 2
    distance = np.abs(x * np.cos(angle) + y * np.sin(angle) - shift)  # (count, 2, 28, 28), in pixels from the line
    ink = np.clip(1.5 - distance, 0, 1).max(1) * rng.uniform(0.8, 1, (count, 1, 1))
    white: NDArray[np.uint8] = np.rint(255 * ink).astype(np.uint8)
    return white


def hide(boxes: NDArray[np.uint8], corners: NDArray[np.int64], turn: NDArray[np.int64]) -> None:
    """Blacken, in boxes (K, 28, 28) at corners (K, 2), what boxes painted at a later turn (K,) cover."""
    gap = corners[None] - corners[:, None]  # (K, K, 2): of the second box in the first
    covered = (np.abs(gap) < BOX).all(2) & (turn[None] > turn[:, None])
    for one, other in zip(*np.nonzero(covered), strict=True):
        dy, dx = gap[one, other]
        boxes[one, max(0, dy) : BOX + min(0, dy), max(0, dx) : BOX + min(0, dx)] = 0


def _apart(rng: np.random.Generator, side: int) -> NDArray[np.int64]:
    """Corners (5, 2) of boxes that do not overlap, each uniform over what the earlier ones leave."""
    corners = np.empty((0, 2), np.int64)
    while len(corners) < DIGITS:
        corner = rng.integers(side - BOX + 1, size=2)
        if (np.abs(corners - corner) >= BOX).any(1).all():
            corners = np.concatenate([corners, corner[None]])
    return corners
