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
from torch.nn import functional

from benchmarks.paper.layers import Batch, PatchReader, area_average, ink, read_patches
from benchmarks.paper.models import AttentionSampling

KINDS = ("epithelial", "fibroblast", "inflammatory", "others")
NUCLEUS_PX = 14
"""A patch within so many pixels of a nucleus shows it."""
DOUBTFUL = ("img37", "img39")
"""Labelled negative, but they show glands."""
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


class ColonSource:
    """Batches of the set; augmented ones are turned, mirrored and stained differently.

    Args:
        images: (n, H, W, 3) uint8.
        low_factor: pixels of an image along one pixel of the low view.
        whole: give whole images, not a reader of patches.
        stain_jitter: standard deviation of the log strength of haematoxylin, eosin and the rest.
    """

    def __init__(self, images: Tensor, *, low_factor: int, whole: bool, stain_jitter: float) -> None:
        # all eight positions are kept: to turn an image costs more than to read ten patches of it
        self.count = len(images)
        self.images = torch.cat(turnings(images))
        self.low = torch.cat(turnings(area_average(images, low_factor)))
        self.whole, self.stain_jitter = whole, stain_jitter

    def __call__(self, items: Sequence[int], generator: torch.Generator | None) -> Batch:
        """Images by number, augmented if there is a generator."""
        index = torch.tensor(items)
        colours = None
        if generator is not None:
            index = index + self.count * torch.randint(8, index.shape, generator=generator)
            if self.stain_jitter > 0:
                noise = torch.randn(len(index), 3, generator=generator)
                colours = stain_matrices((self.stain_jitter * noise).exp())
        images = self.images[index] if self.whole else _Chosen(self.images, index)
        return Batch(images, self.low[index], colours)


@dataclass(frozen=True, slots=True)
class _Chosen(PatchReader):
    """Some images of a store, read patch by patch without copying the rest."""

    store: Tensor
    index: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.store.shape[1:])

    def patches(self, corners: Tensor, px: int) -> Tensor:
        return read_patches(self.store, corners, px, self.index)


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


def haematoxylin_attention(low: Tensor, *, stride: int, sharpness: float) -> Tensor:
    """Log attention (B, K) by stain alone: more where the low view (B, h, w, 3) is bluer.

    ``logit = sharpness * z``, with ``z`` the mean haematoxylin density about a cell, standardised over the image.
    """
    to_stain = torch.from_numpy(hed_from_rgb[:, 0]).float()
    density = (ink(low).movedim(1, -1) @ to_stain).unsqueeze(1)
    about = functional.avg_pool2d(density, stride + 1, stride, stride // 2).flatten(1)  # centred as the cells are
    z = (about - about.mean(1, keepdim=True)) / about.std(1, keepdim=True)
    return (sharpness * z).log_softmax(1)


def warm_up(
    model: AttentionSampling,
    source: ColonSource,
    items: Sequence[int],
    *,
    steps: int,
    sharpness: float,
    seed: int,
    batch_size: int = 8,
    learning_rate: float = 5e-3,
) -> None:
    """Start the attention of ``model`` as `haematoxylin_attention` of augmented images ``items``, without labels."""
    if model.attention is None:
        return
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.attention.parameters(), lr=learning_rate)
    for _ in range(steps):
        some = torch.randint(len(items), (batch_size,), generator=generator).tolist()
        batch = source([items[i] for i in some], generator)
        assert batch.low is not None
        goal = haematoxylin_attention(batch.low, stride=model.stride, sharpness=sharpness)
        found = model.log_attention(batch)[0].flatten(1)
        loss = (goal.exp() * (goal - found)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


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
