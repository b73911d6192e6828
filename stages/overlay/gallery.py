"""The patches that say most for and against a class, as a person sees them: at full resolution, with what each says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from stages.geometry import Mpp, Raster
from stages.overlay.evidence_picture import AGAINST, FOR, LOG_ODDS
from stages.overlay.insets import SHOWN as CLOSE_UP
from stages.overlay.insets import SIDE, Inset, scale_bar
from stages.overlay.text import RED, pen_font, printable, shortened, signed, warning_lines, wrapped
from stages.slide.protocol import Slide
from stages.slide.render import render_many

SHOWN = 6
"""Patches of either kind."""
EDGE = 0.75
"""A patch of which less is tissue has it said: what it tells may be of the edge, not of the tissue."""
MARGIN, CAPTION, HEAD, TITLE = 6, 20, 24, 44
FONT, LINE = 13, 17
"""Heights of the letters and of a line, pixels."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A patch of a gallery.

    Attributes:
        number: its place among the patches that were read.
        contribution, half_width: to the log-odds of the class.
        row, column: of the gallery.
    """

    number: int
    contribution: float
    half_width: float
    row: int
    column: int


def choose(contributions: ArrayLike, half_widths: ArrayLike, most: int = SHOWN) -> list[Shown]:
    """The patches that say most for a class, first row, and most against it, second row, the strongest first.

    Those whose interval holds 0 are left out: they may as well say the opposite.

    Args:
        contributions, half_widths: (N,), in log-odds.
        most: in each row.
    """
    values, half = np.asarray(contributions, np.float64), np.asarray(half_widths, np.float64)
    order = [i for i in np.argsort(-values, kind="stable") if abs(values[i]) > half[i]]
    rows = ([i for i in order if values[i] > 0][:most], [i for i in order[::-1] if values[i] < 0][:most])
    return [
        Shown(int(i), float(values[i]), float(half[i]), row, column)
        for row, chosen in enumerate(rows)
        for column, i in enumerate(chosen)
    ]


def caption(contribution: float, half_width: float | None, tissue: float) -> str:
    """What is said below a patch: its contribution, and how much of it is tissue where that is less than `EDGE`."""
    return signed(contribution, half_width) + (f"  ({tissue:.0%} tissue)" if tissue < EDGE else "")


def explained(name: str, level0: str, seen_mpp: float, unit: str) -> str:
    """What the numbers below patches are, and at which resolution these are shown.

    Args:
        name: of the class.
        level0: µm/px of what is shown.
        seen_mpp: µm/px of what the model saw.
        unit: of the numbers.
    """
    scale = "Log-odds: 0 is a probability of 0.5, +2 is 0.88, +4 is 0.98. " if unit == LOG_ODDS else ""
    return (
        f"Below each patch: what it adds to {name}, in {unit}, \N{PLUS-MINUS SIGN} half of its 95 % interval for "
        "tissue that was not read (0.00: it stands for itself alone); patches whose interval holds 0 are left out. "
        f"{scale}Shown at level 0 ({level0}); the model saw {seen_mpp:g} µm/px."
    )


def render_gallery(
    slide: Slide,
    boxes_level0: ArrayLike,
    shown: Sequence[Shown],
    *,
    name: str,
    title: str,
    tissue: ArrayLike,
    mpp: Mpp,
    seen_mpp: float,
    unit: str = LOG_ODDS,
    warned: Sequence[str] = (),
) -> Image.Image:
    """A gallery: patches by contribution at full resolution, each with what it adds, and a scale bar.

    Args:
        slide: opened.
        boxes_level0: (N, 4) x, y, width, height of all patches that were read, level-0 pixels.
        shown: which of them, and where.
        name: of the class.
        title: above, such as the slide's name and prediction.
        tissue: (N,), how much of each patch is tissue.
        mpp: µm per level-0 pixel.
        seen_mpp: µm/px at which the model saw them.
        unit: of contributions.
        warned: what makes the prediction doubtful, written in red below the title.

    Raises:
        SlideError: the slide cannot be read there.
    """
    boxes = np.asarray(boxes_level0, np.float64).reshape(-1, 4)
    part = np.asarray(tissue, np.float64)
    columns = max((one.column for one in shown), default=0) + 1
    width = max(MARGIN + columns * (SIDE + MARGIN), 3 * (SIDE + MARGIN))
    legend = wrapped(explained(name, f"{mpp} µm/px", seen_mpp, unit), width - 2 * MARGIN, FONT)
    foot = corner(2, 0)[1] - HEAD
    page = Image.new("RGB", (width, foot + CAPTION + LINE * len(legend) + MARGIN), "white")
    pen, font = ImageDraw.Draw(page), pen_font(FONT)
    inner = width - 2 * MARGIN
    warning = warning_lines(warned, inner, FONT, 1)  # in the second line: where patches lie stays as it is
    head = (shortened(title, inner, FONT),) if warning else wrapped(title, inner, FONT)[:2]
    for n, line in enumerate((*head, *warning)):
        pen.text((MARGIN, 4 + n * LINE), line, fill="black" if n < len(head) else RED, font=font)
    pixels = _pixels(slide, boxes, shown, SIDE)
    for row, (most, none, colour) in enumerate(
        (
            ("say most for", "nothing clear speaks for", FOR),
            ("say most against", "nothing clear speaks against", AGAINST),
        )
    ):
        own = [(at, one, rgb) for at, (one, rgb) in enumerate(zip(shown, pixels, strict=True), 1) if one.row == row]
        top = corner(row, 0)[1] - HEAD
        pen.text((MARGIN, top + 4), printable(f"{most if own else none} {name}"), fill=colour, font=font)
        for at, one, rgb in own:
            x, y = corner(row, one.column)
            page.paste(Image.fromarray(rgb), (x, y))
            spread = one.half_width if math.isfinite(one.half_width) else None
            said = caption(one.contribution, spread, part[one.number])
            pen.text((x, y + SIDE + 2), f"{at}:  {said}", fill="black", font=font)
    if shown:
        scale_bar(pen, (MARGIN, foot + 8), float(boxes[shown[0].number, 2]) * mpp.x, SIDE)
    for n, line in enumerate(legend):
        pen.text((MARGIN, foot + CAPTION + n * LINE), line, fill="black", font=font)
    return page


def corner(row: int, column: int) -> tuple[int, int]:
    """(x, y) of a patch's upper left pixel in a gallery."""
    return MARGIN + column * (SIDE + MARGIN), TITLE + row * (HEAD + SIDE + MARGIN + CAPTION) + HEAD


def close_up(gallery: Image.Image, shown: Sequence[Mapping[str, Any]], most: int = CLOSE_UP) -> list[Inset]:
    """The strongest patches of a slide's gallery, cut from it, by their numbers there: where there are both, two thirds
    of them for the class and one third against it.

    Args:
        gallery: the picture.
        shown: which patches it shows, and where, as the slide's commit mark has it.
        most: of them.
    """
    against = sum(one["row"] > 0 for one in shown)
    some = min(against, max(most // 3, most - len(shown) + against))
    first = [at for at, one in enumerate(shown) if one["column"] < (some if one["row"] else most - some)]
    found = []
    for at in first:
        one = shown[at]
        x, y = corner(one["row"], one["column"])
        found.append(
            Inset(
                mark=str(at + 1),
                image=gallery.crop((x, y, x + SIDE, y + SIDE)),
                box_level0=tuple(one["box_level0"]),
                width_um=one["width_um"],
                told=caption(one["contribution"], one["half_width"], one["tissue"]),
                colour=FOR if one["contribution"] > 0 else AGAINST,
            )
        )
    return found


def close_up_told(name: str, unit: str, others: bool) -> str:
    """What is said above them; ``others``: whether the gallery shows more."""
    rest = " The others are in gallery.jpg." if others else ""
    return (
        f"Close up, by their numbers on the map, the patches that say most: what each adds to {name}, in {unit}, "
        "\N{PLUS-MINUS SIGN} half of its 95 % interval for tissue that was not read." + rest
    )


def _pixels(slide: Slide, boxes: NDArray[np.float64], shown: Sequence[Shown], side: int) -> list[NDArray[np.uint8]]:
    """Each patch (side, side, 3): from as many of level 0's pixels as there are, enlarged where they are fewer."""
    if not shown:
        return []
    fine = [min(side, max(1, int(boxes[one.number, 2])), max(1, int(boxes[one.number, 3]))) for one in shown]
    rasters = []
    for one, px in zip(shown, fine, strict=True):
        x, y, w, h = boxes[one.number]
        rasters.append(Raster(x, y, w / px, h / px, px, px))
    found = render_many(slide, rasters) if len(set(fine)) == 1 else [render_many(slide, [r])[0] for r in rasters]
    return [np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC)) for rgb in found]
