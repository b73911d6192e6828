"""What simple measures tell of the classes of tiles and of slides, as AUC: colour must tell nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray
from scipy.stats import rankdata
from skimage.color import hed_from_rgb

from benchmarks.tissue_tiles import DENSITIES, GLASS_DENSITY, Pixels, TileStock

COLOURS = ("red", "green", "blue", "hematoxylin", "eosin")
QUALITY = 85
_COARSE = 16
_STAINS = hed_from_rgb.astype(np.float32)
_BOOTSTRAPS = 400


@dataclass(frozen=True, slots=True)
class Cue:
    """How well one number tells positives from negatives.

    Attributes:
        auc: the chance that it is greater in a positive than in a negative.
        low, high: its 95 % interval, by resampling groups (images, patients).
    """

    auc: float
    low: float
    high: float


def pixel_cues(pixels: Pixels) -> dict[str, float]:
    """Means of colours and stains (optical densities), contrast, roughness, share of glass, of pixels (H, W, 3)."""
    densities = DENSITIES[pixels]
    grey = densities.mean(-1)
    stains = densities.reshape(-1, 3).mean(0) @ _STAINS
    edges = sum(np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1))
    means = (*(float(v) for v in pixels.reshape(-1, 3).mean(0)), float(stains[0]), float(stains[1]))
    return {
        **dict(zip(COLOURS, means, strict=True)),
        "contrast": float(grey.std()),
        "roughness": float(edges),
        "glass": float((grey < GLASS_DENSITY).mean()),
    }


def tile_cues(pixels: Pixels) -> dict[str, float]:
    """`pixel_cues`, those of what a thumbnail of a sixteenth shows, and the bytes of the tile's JPEG."""
    side = pixels.shape[0] // _COARSE * _COARSE
    whole = pixels[:side, :side].reshape(side // _COARSE, _COARSE, side // _COARSE, _COARSE, 3)
    thumbnail = whole.mean((1, 3)).astype(np.uint8)
    coarse = pixel_cues(thumbnail)
    return {
        **pixel_cues(pixels),
        "thumbnail contrast": coarse["contrast"],
        "thumbnail roughness": coarse["roughness"],
        "JPEG bytes": float(len(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, colorsubsampling="420"))),
    }


def pool_cues(stock: TileStock, pool: str, *, tiles: int, seed: int) -> dict[str, Cue]:
    """Of each cue, how well it tells the classes of a pool's matched tiles; ``tiles`` of each class."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, float]] = []
    labels, groups = [], []
    for label in (0, 1):
        members = stock.members(pool, label)
        for i in range(tiles):
            image = int(members[i % len(members)])
            found.append(tile_cues(stock.tile(image, rng)))
            labels.append(label)
            groups.append(image)
    return cue_aucs(found, labels, groups, seed=seed)


def cue_aucs(
    cues: Sequence[Mapping[str, float]], labels: Sequence[int], groups: Sequence[int], *, seed: int = 0
) -> dict[str, Cue]:
    """AUC of each cue; groups, each of one class, are what is resampled for its interval."""
    y, group = np.asarray(labels), np.asarray(groups)
    rng = np.random.default_rng(seed)
    members = {g: np.flatnonzero(group == g) for g in np.unique(group)}
    classes = [[g for g, rows in members.items() if y[rows[0]] == label] for label in (0, 1)]
    draws = [
        np.concatenate([members[g] for found in classes for g in rng.choice(found, len(found))])
        for _ in range(_BOOTSTRAPS)
    ]
    results = {}
    for name in cues[0]:
        values = np.asarray([cue[name] for cue in cues])
        resampled = [auc(values[rows], y[rows]) for rows in draws]
        low, high = np.quantile(resampled, (0.025, 0.975))
        results[name] = Cue(auc(values, y), float(low), float(high))
    return results


def auc(values: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Area under the ROC curve, ties counted half (Mann & Whitney 1947)."""
    positive = labels == 1
    n = int(positive.sum())
    ranks = rankdata(values)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


def cue_table(columns: Mapping[str, Mapping[str, Cue]]) -> str:
    """Cues as lines, one column each for pools or splits; a star where the interval leaves out .5."""
    names = list(dict.fromkeys(name for cues in columns.values() for name in cues))
    lines = [f"{'AUC':20}" + "".join(f"{column:>22}" for column in columns)]
    for name in names:
        cells = []
        for cues in columns.values():
            cue = cues.get(name)
            star = "*" if cue and not cue.low <= 0.5 <= cue.high else " "
            cells.append(f"{cue.auc:.2f} [{cue.low:.2f}, {cue.high:.2f}]{star}" if cue else "")
        lines.append(f"{name:20}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def slide_cues(paths: Sequence[Path], labels: Sequence[int], splits: Sequence[str]) -> dict[str, dict[str, Cue]]:
    """Of each cue, how well its value over a slide tells the classes: in all slides, and in each split."""
    found = [slide_measures(path) for path in paths]
    columns = {"all slides": range(len(found))}
    columns |= {f"{split} slides": [i for i, s in enumerate(splits) if s == split] for split in dict.fromkeys(splits)}
    return {
        name: cue_aucs([found[i] for i in rows], [labels[i] for i in rows], list(rows))
        for name, rows in columns.items()
    }


def slide_measures(path: Path) -> dict[str, float]:
    """`pixel_cues` of the tissue in a slide's coarsest level, how much there is, and the size of the file."""
    with tifffile.TiffFile(path) as tiff:
        pixels = tiff.pages[-1].asarray()
        level0 = tiff.pages[0].aspage().databytecounts
    grey = DENSITIES[pixels].mean(-1)
    tissue = grey > GLASS_DENSITY
    shown = DENSITIES[pixels[tissue]].mean(0) @ _STAINS
    means = (*(float(v) for v in pixels[tissue].mean(0)), float(shown[0]), float(shown[1]))
    edges = [np.abs(np.diff(grey, axis=axis))[np.minimum(*_both(tissue, axis))].mean() for axis in (0, 1)]
    used = np.asarray(level0)
    return {
        **dict(zip(COLOURS, means, strict=True)),
        "contrast": float(grey[tissue].std()),
        "roughness": float(sum(edges)),
        "tissue area": float(tissue.mean()),
        "JPEG bytes": float(np.median(used[used > used.mean()])),
        "file size": float(path.stat().st_size),
    }


def _both(tissue: NDArray[np.bool_], axis: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each pixel, and the next along an axis, is tissue."""
    n = tissue.shape[axis]
    return tissue.take(range(n - 1), axis), tissue.take(range(1, n), axis)
