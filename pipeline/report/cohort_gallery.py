"""The patches of a whole cohort that say most for and against a class, cut from the slides' galleries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from pipeline.output.slide_folder import GALLERY
from stages.overlay.evidence_picture import AGAINST, FOR
from stages.overlay.gallery import FONT, caption, corner, explained
from stages.overlay.insets import SIDE, scale_bar
from stages.overlay.text import pen_font, printable, shortened, wrapped

SHOWN, COLUMNS, SLIDE_MOST = 12, 6, 2
"""Patches of either kind, in rows of so many, and at most so many of one slide."""
LINE, MARGIN = 20, 6
BELOW = 2 * LINE
"""Pixels below a patch: what it says, and its slide."""


def strongest(
    galleries: Mapping[str, Sequence[Mapping[str, Any]] | None],
) -> dict[tuple[str, int], list[tuple[str, Mapping[str, Any]]]]:
    """Of each class the patches that say most for it and most against it, the strongest first, with their slides.

    Args:
        galleries: by slide what its gallery shows, as its commit mark has it; None of what has none.

    Returns:
        By class and sign.
    """
    there = {slide: shown for slide, shown in galleries.items() if shown}
    classes = sorted({one["class"] for shown in there.values() for one in shown})
    found = {}
    for name in classes:
        for sign in (1, -1):
            own = [
                (slide, one)
                for slide, shown in there.items()
                for one in sorted(shown, key=lambda one: -sign * one["contribution"])[:SLIDE_MOST]
                if one["class"] == name and sign * one["contribution"] > 0
            ]
            own.sort(key=lambda pair: -sign * pair[1]["contribution"])
            found[name, sign] = own[:SHOWN]
    return {key: own for key, own in found.items() if own}


def cohort_gallery(
    out: Path, galleries: Mapping[str, Sequence[Mapping[str, Any]] | None], *, seen_mpp: float, unit: str
) -> Image.Image | None:
    """A picture of the cohort's strongest patches; None where no slide shows any.

    Args:
        out: the run's folder.
        galleries: see `strongest`.
        seen_mpp: µm/px at which the model saw the patches.
    """
    found = strongest(galleries)
    if not found:
        return None
    font, step = pen_font(FONT), SIDE + MARGIN
    width = MARGIN + COLUMNS * step
    heights = [LINE + -(-len(own) // COLUMNS) * (step + BELOW) for own in found.values()]
    names = dict.fromkeys(name for name, _ in found)
    legend = wrapped(explained(" or ".join(names), "each slide's own", seen_mpp, unit), width - 2 * MARGIN, FONT)
    page = Image.new("RGB", (width, sum(heights) + (1 + len(legend)) * LINE + 2 * MARGIN), "white")
    pen, top = ImageDraw.Draw(page), MARGIN
    for ((name, sign), own), height in zip(found.items(), heights, strict=True):
        head = printable(f"{'say most for' if sign > 0 else 'say most against'} {name}")
        pen.text((MARGIN, top), head, fill=FOR if sign > 0 else AGAINST, font=font)
        for i, (slide, one) in enumerate(own):
            x, y = MARGIN + i % COLUMNS * step, top + LINE + i // COLUMNS * (step + BELOW)
            left, upper = corner(one["row"], one["column"])
            with suppress(OSError), Image.open(out / "slides" / slide / GALLERY) as gallery:  # else its place is empty
                page.paste(gallery.crop((left, upper, left + SIDE, upper + SIDE)), (x, y))
            said = caption(one["contribution"], one["half_width"], one["tissue"])
            pen.text((x, y + SIDE + 2), said, fill="black", font=font)
            pen.text((x, y + SIDE + 2 + 17), shortened(slide, SIDE, FONT), fill="black", font=font)
        top += height
    first = next(iter(found.values()))[0][1]
    scale_bar(pen, (MARGIN, top + 8), first["width_um"], SIDE)  # one model's patches are all as wide
    for n, line in enumerate(legend):
        pen.text((MARGIN, top + LINE + n * LINE), line, fill="black", font=font)
    return page
