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

from benchmarks.mosaics.stains import DENSITIES, Pixels
from benchmarks.mosaics.tiles import GLASS_DENSITY, POOLS, TileStock

COLOURS = ("red", "green", "blue", "hematoxylin", "eosin")
QUALITY = 85
_COARSE = 16
_STAINS = hed_from_rgb.astype(np.float32)
_BOOTSTRAPS = 400
_RIDGE = 0.01
_ON_GLASS = 0.1


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


@dataclass(frozen=True, slots=True)
class Measured:
    """Cues of each tile or slide, its label, and its group: an image, a patient."""

    values: Sequence[Mapping[str, float]]
    labels: Sequence[int]
    groups: Sequence[int]


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


def pool_cues(stock: TileStock, *, tiles: int) -> dict[str, dict[str, Cue]]:
    """Of each cue, how well it tells the classes of each pool's matched tiles: ``tiles`` of each class or somewhat
    more, equally many of each image, evenly spread over where tiles may be cut."""
    parts = {}
    for pool in POOLS:
        values, labels, groups = [], [], []
        for label in (0, 1):
            members = stock.members(pool, label).tolist()
            for image in members:
                corners = stock.corners[image]
                for place in np.linspace(0, len(corners) - 1, -(-tiles // len(members))).round().astype(int):
                    values.append(tile_cues(stock.tile(image, corners[place])))
                    labels.append(label)
                    groups.append(image)
        parts[pool] = Measured(values, labels, groups)
    return {f"{pool} tiles": cue_aucs(part) for pool, part in crossed(parts).items()}


def crossed(parts: Mapping[str, Measured]) -> dict[str, Measured]:
    """The same with what all colours, and all cues, tell together: by a linear discriminant fitted to the other
    parts."""
    found = {}
    for name, part in parts.items():
        others = [other for key, other in parts.items() if key != name]
        rows = [row for other in others for row in other.values]
        labels = np.asarray([label for other in others for label in other.labels])
        together = {}
        for title, cues in (("colours together", COLOURS), ("all together", tuple(part.values[0]))):
            seen, here = (np.array([[row[cue] for cue in cues] for row in r]) for r in (rows, part.values))
            together[title] = discriminant(seen, labels, here)
        values = [
            {**row, **{title: float(scores[i]) for title, scores in together.items()}}
            for i, row in enumerate(part.values)
        ]
        found[name] = Measured(values, part.labels, part.groups)
    return found


def discriminant(
    seen: NDArray[np.float64], labels: NDArray[np.int64], here: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scores (m,) of rows (m, k) by Fisher's linear discriminant of labelled rows (n, k)."""
    mean, spread = seen.mean(0), seen.std(0) + 1e-12
    seen, here = (seen - mean) / spread, (here - mean) / spread
    centres = [seen[labels == label].mean(0) for label in (0, 1)]
    within = np.mean([np.cov(seen[labels == label].T) for label in (0, 1)], 0) + _RIDGE * np.eye(seen.shape[1])
    return np.asarray(here @ np.linalg.solve(within, centres[1] - centres[0]))


def cue_aucs(measured: Measured) -> dict[str, Cue]:
    """AUC of each cue; groups, each of one class, are what is resampled for its interval."""
    cues, y, group = measured.values, np.asarray(measured.labels), np.asarray(measured.groups)
    rng = np.random.default_rng(0)
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
    values = [slide_measures(path) for path in paths]
    parts = {}
    for split in dict.fromkeys(splits):
        rows = [i for i, other in enumerate(splits) if other == split]
        parts[split] = Measured([values[i] for i in rows], [labels[i] for i in rows], rows)
    columns = {f"{split} slides": cue_aucs(part) for split, part in crossed(parts).items()}
    return {"all slides": cue_aucs(Measured(values, labels, range(len(values)))), **columns}


def slide_measures(path: Path) -> dict[str, float]:
    """`pixel_cues` of the tissue in a slide's coarsest level, how much there is, and the size of the file."""
    with tifffile.TiffFile(path) as tiff:
        pixels = tiff.pages[-1].asarray()
        level0 = tiff.pages[0].aspage().databytecounts
    grey = DENSITIES[pixels].mean(-1)
    tissue = grey > np.quantile(grey, _ON_GLASS) + GLASS_DENSITY  # a scanner's glass may be grey
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
