"""A picture of a slide with all that explains it: the slide as it is beside its map, what was read, close-ups, a scale
bar, what colours mean and what the interval is about.

Everything is placed through `Raster`: a patch outline reaches the picture only by way of level-0 coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import Floats
from stages.overlay.insets import Inset, draw_marks, insets_height, lay_insets, round_length
from stages.overlay.text import RED, pen_font, printable, shortened, warning_lines, wrapped
from stages.tissue.thumbnail import Thumbnail

TITLE, TEXT, SMALL, SMALLEST = 15, 14, 12, 10
"""Heights of letters, pixels."""
SOFT = (64, 64, 64)
OWN_SCALE = "this slide's own scale"
"""The strongest colour is the slide's strongest, not the cohort's: slides are not to be compared by it."""
PATIENT_SCALE = "one scale for this patient's slides"
"""The strongest colour is the strongest of all slides that were predicted together."""
INTERVAL = (
    "In brackets: where, with 95 % confidence, reading all of the tissue would put the prediction. It is not how often "
    "the model is right."
)
RESEARCH = "For research only: not a medical device."
PICTURE_PX = (640, 900)
"""A picture's longer side on the page: small thumbnails are enlarged to the first, large ones reduced to the second."""
MARGIN, GAP, FOOT, LINE, LEAST_WIDTH = 20, 12, 86, 17, 680
"""Of a page, pixels: around it, between its pictures, of scale bar and legend, of a line, and how wide it is at least.
"""
PREVIEW_PX = 160
"""Along a map's longer side in a preview."""
WARNED = 3
"""Lines of warnings at most."""
WIDE = 1.4
"""Pictures that are so many times as wide as high stand one above the other."""
GLASS = 235
THIN = 16
"""Pixels along a patch below which its outline is thin."""


@dataclass(frozen=True, slots=True)
class Page:
    """A picture of a slide with all that explains it.

    Attributes:
        image: RGB.
        place: left, upper, right and lower edge of the map in it, pixels.
        notes: upper edge of what is below the legend: close-ups, and what is said of all.
    """

    image: Image.Image
    place: tuple[int, int, int, int]
    notes: int

    @property
    def above_notes(self) -> Image.Image:
        """The page down to the legend."""
        return self.image.crop((0, 0, self.image.width, self.notes))


Legend = Callable[[Image.Image, tuple[int, int], int], None]
"""Draws what colours mean onto a page, at (left, upper), so many pixels wide."""


def lay(picture: Image.Image, layer: NDArray[np.uint8]) -> None:
    """Lay colours with their opacities (H, W, 4) over a picture."""
    colours = Image.fromarray(layer)
    picture.paste(colours, mask=colours)


def picture_of(thumbnail: Thumbnail, mpp_level0: Mpp) -> tuple[Image.Image, Raster]:
    """The thumbnail as large as a page shows it, with square pixels, and their place."""
    return paged(Image.fromarray(thumbnail.rgb), thumbnail.raster, mpp_level0)


def paged(picture: Image.Image, raster: Raster, mpp_level0: Mpp) -> tuple[Image.Image, Raster]:
    """`picture_of` a thumbnail that is a picture already."""
    left, upper, right, lower = raster.extent_level0
    across_um, down_um = (right - left) * mpp_level0.x, (lower - upper) * mpp_level0.y
    longest = min(max(*picture.size, PICTURE_PX[0]), PICTURE_PX[1])
    width, height = (max(1, round(longest * side / max(across_um, down_um))) for side in (across_um, down_um))
    shown = picture.resize((width, height), Image.Resampling.HAMMING)
    return shown, Raster(left, upper, (right - left) / width, (lower - upper) / height, width, height)


def page(
    picture: Image.Image,
    raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    title: str,
    mpp_level0: Mpp,
    legend: Legend,
    note: str,
    plain: Image.Image | None = None,
    insets: Sequence[Inset] = (),
    insets_told: str = "",
    warned: Sequence[str] = (),
) -> Page:
    """A map of a slide with the patches' outlines, title, scale bar and legend.

    Args:
        picture: the map, drawn into.
        raster: its pixels' place on the level-0 frame.
        patch_boxes_level0: (N, 4), outlined.
        title: wrapped where it is long.
        mpp_level0: µm per level-0 pixel.
        legend: draws what colours mean.
        note: what else there is to know of colours; what the interval is about is added.
        plain: the slide as it is, as large as the map, to stand beside it.
        insets: patches as they look close up, marked here and on the map.
        insets_told: what is told of them; "" leaves them out but for their marks, whose gallery is named instead.
        warned: what makes the prediction doubtful, written in red below the title.
    """
    boxes = np.asarray(patch_boxes_level0, np.float64).reshape(-1, 4)
    pen = ImageDraw.Draw(picture)
    outline(pen, raster, boxes)
    draw_marks(pen, raster, insets, boxes, picture.size)
    width, height = picture.size
    stacked = plain is not None and width > WIDE * height
    across = width if plain is None or stacked else 2 * width + GAP
    page_width = max(across + 2 * MARGIN, LEAST_WIDTH)
    inner = page_width - 2 * MARGIN
    lines, warnings = wrapped(title, inner, TITLE), warning_lines(warned, inner, TEXT, WARNED)
    about = f"{INTERVAL} {RESEARCH}" if "[" in title else RESEARCH  # of what was read whole there is no interval
    note += " Numbers: patches of the slide's gallery." if insets and not insets_told else ""
    beside = "" if plain is None else f"{'Above' if stacked else 'Left'}: the slide as it is. "
    said = [line for told in (f"{beside}{note}", about) for line in wrapped(told, inner, SMALL)]
    left, upper = (page_width - across) // 2, 18 + 20 * len(lines) + LINE * len(warnings)
    first = (left, upper)
    if stacked:
        upper += height + GAP
    elif plain is not None:
        left += width + GAP
    below = upper + height
    close = below + FOOT
    close_up = insets if insets_told else ()
    told = wrapped(insets_told, inner, SMALL) if insets else []
    end = close + LINE * len(told) + insets_height(close_up, inner)
    image = Image.new("RGB", (page_width, end + LINE * len(said) + MARGIN // 2), "white")
    pen = ImageDraw.Draw(image)
    for n, line in enumerate(lines):
        pen.text((MARGIN, 24 + 20 * n), line, fill="black", font=pen_font(TITLE), anchor="ls")
    for n, line in enumerate(warnings):
        pen.text((MARGIN, 22 + 20 * len(lines) + LINE * n), line, fill=RED, font=pen_font(TEXT), anchor="ls")
    for shown, (x, y) in ((plain, first), (picture, (left, upper))):
        if shown is not None:
            pen.rectangle((x - 1, y - 1, x + width, y + height), outline=(191, 191, 191))
            image.paste(shown, (x, y))
    third = inner // 3
    px_per_um = 1 / (raster.scale_x * mpp_level0.x)
    _scale_bar(pen, (MARGIN, below), min(third - 20, max(width, 60)), px_per_um)
    _patch_key(pen, (MARGIN + third, below), boxes, mpp_level0)
    legend(image, (MARGIN + 2 * third, below), third)
    for n, line in enumerate(told):
        pen.text((MARGIN, close + LINE * (n + 1) - 4), line, fill="black", font=pen_font(SMALL), anchor="ls")
    lay_insets(image, (MARGIN, close + LINE * len(told)), close_up, inner)
    for n, line in enumerate(said):
        pen.text((MARGIN, end + LINE * (n + 1) - 4), line, fill=SOFT, font=pen_font(SMALL), anchor="ls")
    return Page(image, (left, upper, left + width, below), close)


def preview(pages: Sequence[Page]) -> Image.Image:
    """The maps of pages of one slide side by side, small."""
    maps = [one.image.crop(one.place) for one in pages]
    small = []
    for one in maps:
        share = min(1.0, PREVIEW_PX / max(one.size))
        size = max(1, round(one.width * share)), max(1, round(one.height * share))
        small.append(one.resize(size, Image.Resampling.BOX))
    image = Image.new("RGB", (sum(one.width + 4 for one in small) - 4, max(one.height for one in small)), "white")
    left = 0
    for one in small:
        image.paste(one, (left, 0))
        left += one.width + 4
    return image


def outline(pen: ImageDraw.ImageDraw, raster: Raster, boxes: Floats) -> None:
    """Outline boxes (N, 4) on a picture: light on dark, which shows on glass, tissue and fluorescence alike."""
    corners = np.stack([raster.from_level0(boxes[:, :2]), raster.from_level0(boxes[:, :2] + boxes[:, 2:])], axis=1)
    for (left, upper), (right, lower) in np.rint(corners).astype(int).tolist():
        line = 2 if min(right - left, lower - upper) >= THIN else 1  # of small ones the inside is to be seen, too
        for around, width, colour in ((line, line + 2, "black"), (line - 1, line, "white")):
            ring = (left - 1 - around, upper - 1 - around, right + around, lower + around)
            pen.rectangle(ring, outline=colour, width=width)


def _scale_bar(pen: ImageDraw.ImageDraw, place: tuple[int, int], most: float, px_per_um: float) -> None:
    (left, upper), length = place, round_length(most / px_per_um)
    pen.rectangle((left, upper + 35, left + round(length * px_per_um) - 1, upper + 39), fill="black")
    told = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    pen.text((left, upper + 62), told, fill="black", font=pen_font(TEXT), anchor="ls")


def _patch_key(pen: ImageDraw.ImageDraw, place: tuple[int, int], boxes: Floats, mpp_level0: Mpp) -> None:
    left, upper = place
    outline(pen, Raster(0, 0, 1, 1, 1, 1), np.array([[left + 2.0, upper + 30.0, 14.0, 14.0]]))
    told = f"{len(boxes)} patch{'' if len(boxes) == 1 else 'es'} read"
    pen.text((left + 26, upper + 42), told, fill="black", font=pen_font(TEXT), anchor="ls")
    if len(boxes):
        side = f"each {boxes[0, 2] * mpp_level0.x:.0f} µm wide"
        pen.text((left + 26, upper + 62), side, fill=SOFT, font=pen_font(SMALL), anchor="ls")


def colour_bar(
    image: Image.Image, place: tuple[int, int], layer: NDArray[np.uint8], title: str, width: int
) -> ImageDraw.ImageDraw:
    """Draw a legend's bar of colours (width, 4) as they are on glass, below its title, in two lines where it is wider
    than ``width``; more is drawn with the pen."""
    left, upper = place
    bar = Image.new("RGB", (len(layer), 14), (GLASS, GLASS, GLASS))
    lay(bar, np.repeat(layer[None], 14, axis=0))
    image.paste(bar, (left, upper + 30))
    pen = ImageDraw.Draw(image)
    size = TEXT if pen_font(TEXT).getlength(printable(title)) <= width else SMALL
    first, *others = wrapped(title, width, size)
    lines = [first, shortened(" ".join(others), width, size)] if others else [first]
    for line, below in zip(lines[::-1], (23, 11), strict=False):
        pen.text((left, upper + below), line, fill="black", font=pen_font(size), anchor="ls")
    return pen


def tick(pen: ImageDraw.ImageDraw, x: float, upper: int, told: str, *, first: bool) -> None:
    """Mark a value below a legend's bar; the first is written from its mark on, for there is no room to its left."""
    pen.line((x, upper + 44, x, upper + 48), fill="black")
    pen.text((x, upper + 60), told, fill="black", font=pen_font(SMALL), anchor="ls" if first else "ms")


def footnote(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
    """Write a legend's last line."""
    pen.text((place[0], place[1] + 76), text, fill=SOFT, font=pen_font(SMALLEST), anchor="ls")
