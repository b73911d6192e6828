"""The overlay as matplotlib has it: a figure that a notebook shows, and in axes of a figure of the caller's."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Mpp, Raster
from stages.overlay.picture import attention_picture, overlay_page
from stages.tissue.thumbnail import Thumbnail

DPI = 100


class Picture(Figure):
    """A figure that a notebook shows, whether or not pyplot was ever imported there."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=self.dpi)
        return png.getvalue()


def overlay_figure(thumbnail: Thumbnail, *parts: Any, **said: Any) -> Figure:
    """`overlay_page` as a matplotlib figure, whose first axes' data coordinates are level-0 pixels; arguments as there.

    At 100 dots an inch its pixels are the page's.
    """
    page = overlay_page(thumbnail, *parts, **said)
    width, height = page.image.size
    left, upper, right, lower = page.place
    figure = Picture(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, 1 - lower / height, (right - left) / width, (lower - upper) / height))
    _level0(axes, thumbnail.raster)
    axes.set_axis_off()
    behind = figure.add_axes((0, 0, 1, 1), zorder=-1)
    behind.imshow(np.asarray(page.image), aspect="auto", interpolation="nearest")
    behind.set_axis_off()
    return figure


def draw_attention(
    axes: Axes,
    thumbnail: Thumbnail,
    attention: NDArray[np.floating],
    attention_raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    mpp_level0: Mpp,
    cells: int | None = None,
) -> None:
    """Draw the overlay into axes of a figure of the caller's, without title and legend; arguments as `overlay_page`."""
    picture, raster, _ = attention_picture(thumbnail, attention, attention_raster, mpp_level0, cells)
    left, upper, right, lower = raster.extent_level0
    axes.imshow(np.asarray(picture), extent=(left, right, lower, upper), aspect="auto")
    x, y, w, h = np.asarray(patch_boxes_level0, np.float64).reshape(-1, 4).T
    corners = np.stack([(x, x + w, x + w, x, x), (y, y, y + h, y + h, y)], axis=-1)  # (5, N, 2)
    rings = list(corners.transpose(1, 0, 2))
    axes.add_collection(LineCollection(rings, colors="black", linewidths=2.6, alpha=0.75))
    axes.add_collection(LineCollection(rings, colors="white", linewidths=1.2))
    _level0(axes, thumbnail.raster)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("0.75")
    axes.set_aspect(mpp_level0.y / mpp_level0.x)


def _level0(axes: Axes, shown: Raster) -> None:
    left, upper, right, lower = shown.extent_level0
    axes.set_xlim(left, right)
    axes.set_ylim(lower, upper)
