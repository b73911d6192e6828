"""The patches of a whole cohort that say most for and against a class, cut from the slides' galleries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pipeline.output.slide_folder import GALLERY
from stages.overlay.gallery import SIDE, corner

SHOWN, COLUMNS, SLIDE_MOST = 12, 6, 2
"""Patches of either kind, in rows of so many, and at most so many of one slide."""
LINE, MARGIN = 20, 6


def strongest(galleries: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Of each class the patches that say most for it and most against it, the strongest first, with their slides.

    Args:
        galleries: by slide what its gallery shows, as its commit mark has it.

    Returns:
        By what is said of them.
    """
    classes = sorted({one["class"] for shown in galleries.values() for one in shown})
    found = {}
    for name in classes:
        for sign, words in ((1, "say most for"), (-1, "say most against")):
            own = [
                (slide, one)
                for slide, shown in galleries.items()
                for one in sorted(shown, key=lambda one: -sign * one["contribution"])[:SLIDE_MOST]
                if one["class"] == name and sign * one["contribution"] > 0
            ]
            own.sort(key=lambda pair: -sign * pair[1]["contribution"])
            found[f"{words} {name}"] = own[:SHOWN]
    return {words: own for words, own in found.items() if own}


def cohort_gallery(out: Path, galleries: Mapping[str, Sequence[Mapping[str, Any]]]) -> Image.Image | None:
    """A picture of the cohort's strongest patches; None where no slide shows any.

    Args:
        out: the run's folder.
        galleries: see `strongest`.
    """
    found = strongest(galleries)
    if not found:
        return None
    font, step = ImageFont.load_default(13), SIDE + MARGIN
    heights = [LINE + -(-len(own) // COLUMNS) * (step + LINE) for own in found.values()]
    page = Image.new("RGB", (MARGIN + COLUMNS * step, sum(heights) + MARGIN), "white")
    pen, top = ImageDraw.Draw(page), MARGIN
    for (words, own), height in zip(found.items(), heights, strict=True):
        pen.text((MARGIN, top), words, fill="black", font=font)
        for i, (slide, one) in enumerate(own):
            x, y = MARGIN + i % COLUMNS * step, top + LINE + i // COLUMNS * (step + LINE)
            left, upper = corner(one["row"], one["column"])
            with suppress(OSError), Image.open(out / "slides" / slide / GALLERY) as gallery:  # else its place is empty
                page.paste(gallery.crop((left, upper, left + SIDE, upper + SIDE)), (x, y))
            said = f"{one['contribution']:+.2f}  {slide}"
            while pen.textlength(said, font) > SIDE and len(said) > 9:
                said = said[:-2] + "…"
            pen.text((x, y + SIDE + 2), said, fill="black", font=font)
        top += height
    return page
