"""What speaks for and against a class, as a picture: orange for it, blue against it, on the slide in grey."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import under
from stages.overlay.insets import Inset
from stages.overlay.page import (
    OWN_SCALE,
    PATIENT_SCALE,
    Page,
    colour_bar,
    footnote,
    lay,
    page,
    picture_of,
    tick,
)
from stages.overlay.text import MINUS
from stages.tissue.thumbnail import Thumbnail

FOR, AGAINST = (217, 95, 2), (5, 113, 176)
"""Told apart in any colour blindness, by hue and on grey."""
OPACITY = 0.85
"""Of the strongest evidence; weaker evidence shows by the root of its share, so that it is seen at all."""
LOG_ODDS = "log-odds"
LEAST = 2.0
"""Log-odds of a cell below which the scale does not shrink: without evidence, noise is not to look like it."""
LEAST_ELSE = 0.1
"""The same of other units, whose sums over all cells are of the order of 1."""


def coloured(evidence: NDArray[np.floating], top: float) -> NDArray[np.uint8]:
    """Colour and opacity (..., 4) of evidence (...) in log-odds: strongest at ``top`` of either sign."""
    opacity = 255 * OPACITY * np.sqrt(np.clip(np.abs(evidence) / top, 0, 1))[..., None]
    colour = np.where(evidence[..., None] > 0, np.array(FOR, float), np.array(AGAINST, float))
    layer: NDArray[np.uint8] = np.rint(np.concatenate([colour, opacity], axis=-1)).astype(np.uint8)
    return layer


def greyed(picture: Image.Image) -> Image.Image:
    """A picture in grey and paler, so that colours on it are the evidence's."""
    return picture.convert("L").point([round(255 - 0.7 * (255 - value)) for value in range(256)]).convert("RGB")


def evidence_page(
    thumbnail: Thumbnail,
    evidence: NDArray[np.floating],
    evidence_raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    name: str,
    interpolated: bool,
    title: str,
    mpp_level0: Mpp,
    unit: str = LOG_ODDS,
    top: float | None = None,
    insets: Sequence[Inset] = (),
    warned: Sequence[str] = (),
) -> Page:
    """The evidence with title, scale bar and legend.

    Args:
        thumbnail: the slide at low resolution.
        evidence: (rows, cols), what each cell adds to the log-odds of the class, or to the number that is told.
        evidence_raster: its cells' place on the level-0 frame.
        patch_boxes_level0: (N, 4) x, y, width, height of the patches that were read, level-0 pixels.
        name: of the class.
        interpolated: whether values of cells that were not read are those of patches that look alike.
        title: wrapped where it is long.
        mpp_level0: µm per level-0 pixel.
        unit: of the evidence; log-odds are coloured up to `LEAST` at least, others up to `LEAST_ELSE`.
        top: of slides that share a scale, the strongest evidence of either sign on any; None: the slide has its own.
        insets: patches that are marked by their numbers in the slide's gallery.
        warned: see `stages.overlay.page.page`.
    """
    picture, raster = picture_of(thumbnail, mpp_level0)
    picture = greyed(picture)
    strongest = float(np.abs(evidence).max(initial=0.0)) if top is None else top
    strongest = max(LEAST if unit == LOG_ODDS else LEAST_ELSE, strongest)
    lay(picture, under(raster, coloured(evidence.astype(np.float64), strongest), evidence_raster))
    scale = OWN_SCALE if top is None else PATIENT_SCALE

    def legend(image: Image.Image, place: tuple[int, int], width: int) -> None:
        _legend(image, place, width, strongest, f"{unit} per cell, for {name}", scale)

    chance = " 0 is a probability of 0.5, +2 is 0.88, +4 is 0.98." if unit == LOG_ODDS else ""
    unread = " Of places that were not read it is what read patches that look alike add." if interpolated else ""
    return page(
        picture,
        raster,
        patch_boxes_level0,
        title=title,
        mpp_level0=mpp_level0,
        legend=legend,
        note=f"Orange speaks for {name}, blue against it: what a place by itself adds, in {unit}.{chance}{unread}",
        insets=insets,
        warned=warned,
    )


def _legend(image: Image.Image, place: tuple[int, int], width: int, top: float, head: str, note: str) -> None:
    (left, upper), inner = place, width - 24
    pen = colour_bar(image, place, coloured(np.linspace(-top, top, inner), top), head, width)
    digits = max(0, 1 - math.floor(math.log10(top)))
    for at in (-1, 0, 1):
        text = f"{at * top:+.{digits}f}".replace("-", MINUS) if at else "0"
        tick(pen, left + (inner - 1) * (at + 1) / 2, upper, text, first=at < 0)
    footnote(pen, place, note)
