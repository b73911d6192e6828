"""What speaks for and against a class, as a picture: orange for it, blue against it, on the slide in grey."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import attention_image
from stages.overlay.picture import OWN_SCALE, page, reduced, save_page, strip
from stages.overlay.text import MINUS, shortened
from stages.tissue.thumbnail import Thumbnail

FOR, AGAINST = (217, 95, 2), (5, 113, 176)
"""Told apart in any colour blindness, by hue and on grey."""
OPACITY = 0.85
"""Of the strongest evidence; weaker evidence shows by the root of its share, so that it is seen at all."""
LEAST = 2.0
"""Log-odds of a cell below which the scale does not shrink: without evidence, noise is not to look like it."""


def blend_evidence(rgb: NDArray[np.uint8], evidence: NDArray[np.floating], top: float) -> NDArray[np.uint8]:
    """Lay evidence (H, W), in log-odds, over an image (H, W, 3) made grey: strongest at ``top`` of either sign."""
    grey = np.repeat(255 - 0.7 * (255 - rgb.mean(2, keepdims=True)), 3, 2)
    opacity = OPACITY * np.sqrt(np.clip(np.abs(evidence) / top, 0, 1))[..., None]
    colour = np.where(evidence[..., None] > 0, np.array(FOR, float), np.array(AGAINST, float))
    mixed: NDArray[np.uint8] = np.rint(grey * (1 - opacity) + colour * opacity).astype(np.uint8)
    return mixed


def evidence_figure(
    thumbnail: Thumbnail,
    evidence: NDArray[np.floating],
    evidence_raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    name: str,
    interpolated: bool,
    title: str,
    mpp_level0: Mpp,
) -> Figure:
    """The evidence as a matplotlib figure, whose first axes' data coordinates are level-0 pixels.

    Args:
        thumbnail: the slide at low resolution.
        evidence: (rows, cols), what each cell adds to the log-odds of the class.
        evidence_raster: its cells' place on the level-0 frame.
        patch_boxes_level0: (N, 4) x, y, width, height of the patches that were read, level-0 pixels.
        name: of the class.
        interpolated: whether values of cells that were not read are those of patches that look alike.
        title: wrapped where it is long.
        mpp_level0: µm per level-0 pixel.
    """
    rgb, raster = reduced(thumbnail)
    top = max(LEAST, float(np.abs(evidence).max(initial=0.0)))
    values = attention_image(raster, evidence.astype(np.float64), evidence_raster)
    boxes = np.asarray(patch_boxes_level0, np.float64).reshape(-1, 4)

    def legend(figure: Figure, place: tuple[float, float]) -> None:
        _legend(figure, place, top, name, interpolated=interpolated)

    shown = thumbnail.raster
    return page(
        blend_evidence(rgb, values, top), raster, shown, boxes, title=title, mpp_level0=mpp_level0, legend=legend
    )


def draw_evidence(path: Path, *parts: Any, **said: Any) -> None:
    """Write `evidence_figure` to ``path`` as PNG, whatever the path's ending."""
    save_page(evidence_figure(*parts, **said), path)


def _legend(figure: Figure, place: tuple[float, float], top: float, name: str, *, interpolated: bool) -> None:
    left, width = place
    axes = strip(figure, left, 12, width, 58)
    inner = width - 24
    share = np.linspace(-1, 1, 255)
    glass = np.full((1, 255, 3), 235, np.uint8)
    axes.imshow(blend_evidence(glass, (share * top)[None], top), extent=(0, inner, 30, 44), aspect="auto")
    axes.set_xlim(0, width)
    axes.set_ylim(0, 58)
    axes.text(
        0, 48, shortened(f"log-odds per cell, for {name}", width, 12.5), fontsize=9, va="bottom", parse_math=False
    )
    digits = max(0, 1 - math.floor(math.log10(top)))
    for at in (-1.0, 0.0, 1.0):
        x = inner * (at + 1) / 2
        axes.plot([x, x], [26, 30], color="black", linewidth=0.8)
        axes.text(
            x,
            24,
            f"{at * top:+.{digits}f}".replace("-", MINUS) if at else "0",
            fontsize=8.5,
            va="top",
            ha="center" if at + 1 else "left",
        )
    unread = "; unread: by like patches" if interpolated else ""
    axes.text(0, 8, f"{OWN_SCALE}{unread}", fontsize=7.5, va="top", color="0.25")
