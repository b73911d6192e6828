"""Attention and sampled patches as a picture.

Everything is placed through `Raster`: an attention value and a patch outline reach the picture only by way of level-0
coordinates.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import Floats, attention_image, times_uniform
from stages.overlay.text import FAMILY, wrapped
from stages.tissue.thumbnail import Thumbnail

COLOURS, COLOURS_FROM = "viridis", 0.3
"""Perceptually uniform, from teal to yellow: its purple beginning is left out because it looks like haematoxylin."""
OPACITY = (0.30, 0.80)
"""Of the colour at uniform attention and at the highest; below uniform attention the tissue shows as it is."""
DPI = 100
TITLE_PT = 11
OWN_SCALE = "this slide's own scale"
"""The strongest colour is the slide's strongest, not the cohort's: slides are not to be compared by it."""
PICTURE_PX = (640, 1500)
"""A picture's longer side on the page: small thumbnails are enlarged to the first, large ones reduced to the second."""


def blend(rgb: NDArray[np.uint8], multiple: NDArray[np.floating], top: float) -> NDArray[np.uint8]:
    """Lay colour over an image (H, W, 3): none below uniform attention, strongest at ``top`` times it, log scale."""
    height = np.log(np.clip(multiple, 1.0, top)) / math.log(top)
    low, high = OPACITY
    opacity = np.where(multiple > 1.0, low + (high - low) * height, 0.0)[..., None]
    colour = colormaps[COLOURS](COLOURS_FROM + (1 - COLOURS_FROM) * height)[..., :3] * 255
    mixed: NDArray[np.uint8] = np.rint(rgb * (1 - opacity) + colour * opacity).astype(np.uint8)
    return mixed


class Picture(Figure):
    """A figure that a notebook shows, whether or not pyplot was ever imported there."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=self.dpi)
        return png.getvalue()


def draw_attention(
    axes: Axes,
    thumbnail: Thumbnail,
    attention: NDArray[np.floating],
    attention_raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    mpp_level0: Mpp,
) -> None:
    """Draw the overlay into axes of a figure of the caller's; arguments as `overlay_figure`'s."""
    rgb, raster, _ = _coloured(thumbnail, attention, attention_raster)
    _lay(axes, rgb, raster, thumbnail.raster, np.asarray(patch_boxes_level0, np.float64).reshape(-1, 4))
    axes.set_aspect(mpp_level0.y / mpp_level0.x)


def _coloured(
    thumbnail: Thumbnail, attention: NDArray[np.floating], attention_raster: Raster
) -> tuple[NDArray[np.uint8], Raster, float]:
    """The picture, its place, and the multiple of the uniform attention that its strongest colour stands for."""
    rgb, raster = reduced(thumbnail)
    multiple = times_uniform(attention)
    top = max(2.0, float(multiple.max(initial=0.0)))
    return blend(rgb, attention_image(raster, multiple, attention_raster), top), raster, top


def _lay(axes: Axes, rgb: NDArray[np.uint8], raster: Raster, shown: Raster, boxes: Floats) -> None:
    """Put the picture and the patches' outlines at their level-0 places, cut to what is shown."""
    place, (left, upper, right, lower) = raster.extent_level0, shown.extent_level0
    axes.imshow(rgb, extent=(place[0], place[2], place[3], place[1]), aspect="auto")
    _outline(axes, boxes)
    axes.set_xlim(left, right)
    axes.set_ylim(lower, upper)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("0.75")


def overlay_figure(
    thumbnail: Thumbnail,
    attention: NDArray[np.floating],
    attention_raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    title: str,
    mpp_level0: Mpp,
) -> Figure:
    """The overlay as a matplotlib figure, whose first axes' data coordinates are level-0 pixels.

    Args:
        thumbnail: the slide at low resolution.
        attention: (rows, cols), summing to one over the tissue and 0 off it.
        attention_raster: its cells' place on the level-0 frame.
        patch_boxes_level0: (N, 4) x, y, width, height of the patches that were read, level-0 pixels.
        title: wrapped where it is long, such as the prediction with its interval.
        mpp_level0: µm per level-0 pixel.
    """
    rgb, raster, top = _coloured(thumbnail, attention, attention_raster)
    return page(
        rgb,
        raster,
        thumbnail.raster,
        np.asarray(patch_boxes_level0, np.float64).reshape(-1, 4),
        title=title,
        mpp_level0=mpp_level0,
        legend=lambda figure, place: _legend(figure, place, top),
    )


def page(
    rgb: NDArray[np.uint8],
    raster: Raster,
    shown: Raster,
    boxes: Floats,
    *,
    title: str,
    mpp_level0: Mpp,
    legend: Callable[[Figure, tuple[float, float]], None],
) -> Figure:
    """A picture of a slide with title, scale bar and legend, whose first axes' data coordinates are level-0 pixels.

    Args:
        rgb: (H, W, 3).
        raster: its pixels' place on the level-0 frame.
        shown: what of the frame is shown.
        boxes: (N, 4), outlined.
        title: wrapped where it is long.
        mpp_level0: µm per level-0 pixel.
        legend: draws what colours mean at (left, width), in page pixels from the lower left corner.
    """
    left, upper, right, lower = shown.extent_level0
    across_um, down_um = (right - left) * mpp_level0.x, (lower - upper) * mpp_level0.y
    longest = min(max(*rgb.shape[:2], PICTURE_PX[0]), PICTURE_PX[1])
    width, height = (max(1.0, longest * side / max(across_um, down_um)) for side in (across_um, down_um))
    page_width, margin, foot = max(width + 40, 680.0), 20.0, 86.0
    lines = wrapped(title, page_width - 2 * margin, TITLE_PT * DPI / 72)
    head = 18 + 20.0 * len(lines)
    page_height = head + height + foot

    figure = Picture(figsize=(page_width / DPI, page_height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    x0, y0 = (page_width - width) / 2, foot
    main = figure.add_axes((x0 / page_width, y0 / page_height, width / page_width, height / page_height))
    _lay(main, rgb, raster, shown, boxes)
    for n, line in enumerate(lines):
        # a dollar sign in a slide's name is not mathematics
        at = (margin / page_width, 1 - (24 + 20 * n) / page_height)
        figure.text(*at, line, fontsize=TITLE_PT, family=FAMILY, parse_math=False)
    third = (page_width - 2 * margin) / 3
    _scale_bar(figure, (margin, min(third - 20, max(width, 60.0))), width / across_um)
    _patch_key(figure, margin + third, boxes, mpp_level0)
    legend(figure, (margin + 2 * third, third))
    return figure


def save_page(figure: Figure, path: Path) -> None:
    """Write a page to ``path`` as PNG, whatever the path's ending; hard compression takes longer and saves nothing."""
    figure.savefig(path, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})


def draw_overlay(
    path: Path,
    thumbnail: Thumbnail,
    attention: NDArray[np.floating],
    attention_raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    title: str,
    mpp_level0: Mpp,
) -> None:
    """Write `overlay_figure` to ``path`` as PNG, whatever the path's ending."""
    figure = overlay_figure(
        thumbnail, attention, attention_raster, patch_boxes_level0, title=title, mpp_level0=mpp_level0
    )
    save_page(figure, path)


def reduced(thumbnail: Thumbnail) -> tuple[NDArray[np.uint8], Raster]:
    """The thumbnail at a whole fraction of its size, no larger than a page needs."""
    height, width = thumbnail.rgb.shape[:2]
    step = max(height, width) // PICTURE_PX[1]
    if step <= 1:
        return thumbnail.rgb, thumbnail.raster
    # edge rows and columns are repeated up to a whole block, which `pooled` counts in full
    padded = np.pad(thumbnail.rgb, ((0, -height % step), (0, -width % step), (0, 0)), mode="edge")
    rgb = np.asarray(Image.fromarray(padded).reduce(step))
    return rgb, thumbnail.raster.pooled(step, step / 2, rgb.shape[1], rgb.shape[0])


def _outline(axes: Any, boxes: Floats) -> None:
    x, y, w, h = boxes.T
    corners = np.stack([(x, x + w, x + w, x, x), (y, y, y + h, y + h, y)], axis=-1)  # (5, N, 2)
    rings = list(corners.transpose(1, 0, 2))
    # light on dark, so that the outline shows on glass, on tissue and on fluorescence alike
    axes.add_collection(LineCollection(rings, colors="black", linewidths=2.6, alpha=0.75))
    axes.add_collection(LineCollection(rings, colors="white", linewidths=1.2))


def strip(figure: Figure, x: float, y: float, width: float, height: float) -> Any:
    """Axes at page pixels (from the bottom left), with data coordinates in page pixels of their own."""
    page_width, page_height = figure.get_size_inches() * DPI
    axes = figure.add_axes((x / page_width, y / page_height, width / page_width, height / page_height))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    return axes


def round_length(most: float) -> float:
    """The longest 1, 2 or 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return power * max(m for m in (1, 2, 5) if m * power <= most * (1 + 1e-9))


def _scale_bar(figure: Figure, place: tuple[float, float], px_per_um: float) -> None:
    left, width = place
    length = round_length(width / px_per_um)
    axes = strip(figure, left, 12, width, 58)
    axes.plot([0, length * px_per_um], [36, 36], color="black", linewidth=4, solid_capstyle="butt")
    axes.text(0, 22, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm", fontsize=10, va="top")


def _patch_key(figure: Figure, left: float, boxes: Floats, mpp_level0: Mpp) -> None:
    axes = strip(figure, left, 12, 200, 58)
    square = np.array([[2.0, 30.0, 14.0, 14.0]])
    _outline(axes, square)
    side = f"each {boxes[0, 2] * mpp_level0.x:.0f} µm wide" if len(boxes) else ""
    axes.text(26, 37, f"{len(boxes)} patch{'' if len(boxes) == 1 else 'es'} read", fontsize=10, va="center")
    axes.text(26, 22, side, fontsize=8.5, va="top", color="0.25")


def _legend(figure: Figure, place: tuple[float, float], top: float) -> None:
    left, width = place
    axes = strip(figure, left, 12, width, 58)
    inner = width - 24  # room for the last tick's label
    ramp = np.exp(np.linspace(0, math.log(top), 256))[None, :] * (1 + 1e-9)
    glass = np.full((1, 256, 3), 235, np.uint8)
    axes.imshow(blend(glass, ramp, top), extent=(0, inner, 30, 44), aspect="auto")
    axes.set_xlim(0, width)
    axes.set_ylim(0, 58)
    axes.text(0, 48, "attention, times uniform", fontsize=10, va="bottom")
    last = -math.inf
    for tick in [*(m * 10.0**p for p in range(9) for m in (1, 2, 5)), top]:
        x = inner * math.log(tick) / math.log(top)
        if x - last >= 38 and (x <= inner - 38 or tick == top):
            last = x
            axes.plot([x, x], [26, 30], color="black", linewidth=0.8)
            text = f"{tick:.0f}" if tick >= 10 else f"{tick:.2g}"
            axes.text(
                x, 24, f"{text}\N{MULTIPLICATION SIGN}", fontsize=8.5, va="top", ha="left" if x == 0 else "center"
            )
    axes.text(0, 8, OWN_SCALE, fontsize=7.5, va="top", color="0.25")
