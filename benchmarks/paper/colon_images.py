"""The colon-cancer images: pixels, labels, nuclei, folds, colour features, and what attention looks at.

CRCHistoPhenotypes (K. Sirinukunwattana et al., "Locality Sensitive Deep Learning for Detection and Classification of
Nuclei in Routine Colon Cancer Histology Images", IEEE TMI 2016): 100 H&E images of 500 x 500 pixels at 20x. An image is
positive when it shows an epithelial nucleus. The positions of nuclei are never used in training.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from scipy.spatial import cKDTree
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor

from benchmarks.paper.config import Sight
from benchmarks.paper.views import corners_of, padded, shrunk, view_of, window_reader
from benchmarks.paper.whole import Batch
from pipeline.model.values import View

KINDS = ("epithelial", "fibroblast", "inflammatory", "others")
NUCLEUS_PX = 14
"""A patch within so many pixels of a nucleus shows it."""
DOUBTFUL = ("img37", "img39")
"""Labelled negative, but they show glands."""
DENSITIES = np.log(256 / (np.arange(256) + 1)).astype(np.float32)
"""Optical density of each grey level, as `layers.ink` has it."""
QUANTILES = np.linspace(0.02, 0.98, 13)


@dataclass(frozen=True, slots=True)
class Colon:
    """The set in memory.

    Attributes:
        names: of the images, in the order of their numbers.
        images: (n, 500, 500, 3) uint8.
        labels: (n,) int64, 1 where there is an epithelial nucleus.
        nuclei: of each image, positions (m, 2) of the nuclei of each kind, as (y, x) in pixels.
    """

    names: tuple[str, ...]
    images: Tensor
    labels: Tensor
    nuclei: tuple[dict[str, NDArray[np.float64]], ...]


def load_colon(data: Path) -> Colon:
    """Read the set from the data folder.

    Raises:
        FileNotFoundError: it is not there.
    """
    root = data / "crchistophenotypes"
    if not (root / "labels.csv").is_file():
        raise FileNotFoundError(f"no colon-cancer set at {root}: set SACCADE_DATA to the folder that holds it")
    with (root / "labels.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["image"].removeprefix("img")))
    images, nuclei = [], []
    for row in rows:
        name = row["image"]
        folder = root / "CRCHistoPhenotypes_2016_04_28" / name
        images.append(torch.from_numpy(np.asarray(Image.open(folder / f"{name}.bmp").convert("RGB")).copy()))
        found = {kind: loadmat(folder / f"{name}_{kind}.mat")["detection"] for kind in KINDS}
        nuclei.append({kind: np.asarray(xy, np.float64).reshape(-1, 2)[:, ::-1] for kind, xy in found.items()})
    labels = torch.tensor([int(row["label_epithelial"]) for row in rows])
    return Colon(tuple(row["image"] for row in rows), torch.stack(images), labels, tuple(nuclei))


def assign_folds(labels: Sequence[int], folds: int, *, seed: int) -> NDArray[np.int64]:
    """The test fold of each image, (n,): every class is dealt evenly, in random order."""
    rng = np.random.default_rng(seed)
    y = np.asarray(labels)
    order = np.concatenate([rng.permutation(np.flatnonzero(y == c)) for c in np.unique(y)])
    fold = np.empty(len(y), np.int64)
    fold[order] = np.arange(len(y)) % folds
    return fold


def block_folds(n: int, folds: int) -> NDArray[np.int64]:
    """The test fold of each image, (n,): runs of neighbouring images, which look as if cut from the same slides."""
    return np.arange(n) * folds // n


class WholeImages:
    """Batches of whole images; augmented ones are turned, mirrored and stained differently.

    Args:
        images: (n, H, W, 3) uint8.
        stain_jitter: standard deviation of the log strength of haematoxylin, eosin and the rest.
    """

    def __init__(self, images: Tensor, *, stain_jitter: float) -> None:
        # all eight positions are kept: to turn an image takes as long as a small network's step
        self.count = len(images)
        self.images = torch.cat(turnings(images))
        self.stain_jitter = stain_jitter

    def __call__(self, items: Sequence[int], generator: torch.Generator | None) -> Batch:
        """Images by number, augmented if there is a generator."""
        index = torch.tensor(items)
        colours = None
        if generator is not None:
            index = index + self.count * torch.randint(8, index.shape, generator=generator)
            if self.stain_jitter > 0:
                noise = torch.randn(len(index), 3, generator=generator)
                colours = stain_matrices((self.stain_jitter * noise).exp())
        return Batch(self.images[index], colours)


class ColonViews:
    """The images as the product's model sees them, one by one, with the same augmentation as `WholeImages`."""

    def __init__(self, images: Tensor, sight: Sight, *, stain_jitter: float) -> None:
        self.sight, self.stain_jitter = sight, stain_jitter
        self.low = [shrunk(image, sight.low_px) for image in images.numpy()]
        self.framed = [padded(image, sight.patch_px) for image in images.numpy()]
        self.scale = images.shape[1] / sight.low_px

    def __call__(self, index: int, generator: torch.Generator | None) -> View:
        """An image by number, augmented if there is a generator."""
        low, framed, colours = self.low[index], self.framed[index], None
        if generator is not None:
            way = int(torch.randint(8, (), generator=generator))
            low, framed = turned(low, way), turned(framed, way)
            if self.stain_jitter > 0:
                noise = torch.randn(1, 3, generator=generator)
                colours = stain_matrices((self.stain_jitter * noise).exp())[0].numpy()
        read = window_reader(framed, self.sight.patch_px)
        return view_of(
            stained(low, colours), lambda corners: stained(read(corners), colours), self.sight, (self.scale,) * 2
        )

    def centres(self) -> NDArray[np.float64]:
        """Centres of all cells' patches (K, 2), as (y, x) in pixels of the image."""
        rows, columns = (-(-n // self.sight.cell_px) for n in self.low[0].shape[:2])
        cells = np.stack(np.divmod(np.arange(rows * columns), columns), -1)
        return corners_of(cells, self.sight, (self.scale,) * 2) + self.sight.patch_px / 2


def turned(image: NDArray[np.uint8], way: int) -> NDArray[np.uint8]:
    """One of the eight positions of an image (H, W, C), without copying it."""
    return np.rot90(image[:, ::-1] if way >= 4 else image, way % 4)


def turnings(images: Tensor) -> list[Tensor]:
    """The eight positions of images (n, H, W, C), the first as they are."""
    return [
        torch.rot90(mirrored, quarter, (1, 2)).contiguous()
        for mirrored in (images, images.flip(2))
        for quarter in range(4)
    ]


def stain_matrices(strengths: Tensor) -> Tensor:
    """Maps of optical densities (B, 3, 3, for row vectors) that multiply haematoxylin, eosin and the rest by strengths
    (B, 3) (Ruifrok & Johnston 2001; as augmentation: Tellez et al., 2019)."""
    to_stain, from_stain = (torch.from_numpy(m).float() for m in (hed_from_rgb, rgb_from_hed))
    return to_stain @ torch.diag_embed(strengths) @ from_stain


def stained(pixels: NDArray[np.uint8], colours: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """Pixels (..., 3) whose optical densities are multiplied by one of `stain_matrices`, (3, 3)."""
    if colours is None:
        return pixels
    densities = DENSITIES[pixels] @ colours
    return np.rint(256 * np.exp(-densities) - 1).clip(0, 255).astype(np.uint8)


def colour_quantiles(images: Tensor) -> NDArray[np.float64]:
    """Quantiles of each channel over each image (n, H, W, 3): (n, 3 * 13); they know nothing of where things are."""
    pixels = images.reshape(len(images), -1, 3).numpy()
    found: NDArray[np.float64] = np.quantile(pixels, QUANTILES, axis=1)  # (13, n, 3)
    return found.transpose(1, 0, 2).reshape(len(images), -1)


@dataclass(frozen=True, slots=True)
class Focus:
    """How much attention lies within `NUCLEUS_PX` of an epithelial nucleus.

    Attributes:
        mass: of the attention.
        chance: of attention spread evenly: the share of the area.
        any_nucleus: of attention spread evenly over what is near any nucleus.
    """

    mass: float
    chance: float
    any_nucleus: float


def focus(
    attention: NDArray[np.float64], centres: NDArray[np.float64], nuclei: dict[str, NDArray[np.float64]]
) -> Focus:
    """Of attention (K,) over cells whose patches have ``centres`` (K, 2), as (y, x) in pixels."""
    every = np.concatenate([nuclei[kind] for kind in KINDS])
    near, near_any = (np.asarray(cKDTree(yx).query(centres)[0]) <= NUCLEUS_PX for yx in (nuclei["epithelial"], every))
    return Focus(
        mass=float(attention[near].sum()),
        chance=float(near.mean()),
        any_nucleus=float((near & near_any).sum() / max(1, near_any.sum())),
    )
