"""The patches of a whole cohort that say most for and against a class, cut from the slides' galleries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from pipeline.output.slide_folder import GALLERY
from stages.overlay.evidence_picture import AGAINST, FOR
from stages.overlay.gallery import FONT, caption, corner, explained
from stages.overlay.insets import SIDE, scale_bar
from stages.overlay.text import RED, pen_font, printable, shortened, warning_lines, wrapped

SHOWN, COLUMNS, SLIDE_MOST = 12, 6, 2
"""Patches of either kind, in rows of so many, and at most so many of one slide."""
LINE, MARGIN = 20, 6
BELOW = 2 * LINE
"""Pixels below a patch: what it says, and its slide."""
WARNED = 2
"""Lines at most of what is doubtful of the model."""
DOUBTFUL = "Names in red: slides with a warning."


@dataclass(frozen=True, slots=True)
class CohortGallery:
    """A picture of the cohort's strongest patches.

    Attributes:
        image: RGB.
        cuts: upper edges of its rows but the first, a row's heading with it: where a printed page may end.
    """

    image: Image.Image
    cuts: tuple[int, ...]


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
    out: Path,
    galleries: Mapping[str, Sequence[Mapping[str, Any]] | None],
    *,
    seen_mpp: float,
    unit: str,
    warned: Sequence[str] = (),
    doubtful: Collection[str] = (),
) -> CohortGallery | None:
    """A picture of the cohort's strongest patches; None where no slide shows any.

    Args:
        out: the run's folder.
        galleries: see `strongest`.
        seen_mpp: µm/px at which the model saw the patches.
        unit: of contributions.
        warned: what makes all predictions doubtful, written in red on top.
        doubtful: slides with warnings of their own, whose names are red.
    """
    found = strongest(galleries)
    if not found:
        return None
    font, step = pen_font(FONT), SIDE + MARGIN
    width = MARGIN + COLUMNS * step
    heights = [LINE + -(-len(own) // COLUMNS) * (step + BELOW) for own in found.values()]
    names, inner = dict.fromkeys(name for name, _ in found), width - 2 * MARGIN
    red = {slide for own in found.values() for slide, _ in own if slide in doubtful}
    about = explained(" or ".join(names), "each slide's own", seen_mpp, unit) + (f" {DOUBTFUL}" if red else "")
    legend, warning = wrapped(about, inner, FONT), warning_lines(warned, inner, FONT, WARNED)
    lines = len(warning) + 1 + len(legend)
    page = Image.new("RGB", (width, sum(heights) + lines * LINE + 2 * MARGIN), "white")
    pen, top, cuts = ImageDraw.Draw(page), MARGIN + len(warning) * LINE, []
    for n, line in enumerate(warning):
        pen.text((MARGIN, MARGIN + n * LINE), line, fill=RED, font=font)
    for ((name, sign), own), height in zip(found.items(), heights, strict=True):
        cuts += [top, *(top + LINE + row * (step + BELOW) for row in range(1, -(-len(own) // COLUMNS)))]
        head = printable(f"{'say most for' if sign > 0 else 'say most against'} {name}")
        pen.text((MARGIN, top), head, fill=FOR if sign > 0 else AGAINST, font=font)
        for i, (slide, one) in enumerate(own):
            x, y = MARGIN + i % COLUMNS * step, top + LINE + i // COLUMNS * (step + BELOW)
            left, upper = corner(one["row"], one["column"])
            with suppress(OSError), Image.open(out / "slides" / slide / GALLERY) as gallery:  # else its place is empty
                page.paste(gallery.crop((left, upper, left + SIDE, upper + SIDE)), (x, y))
            said = caption(one["contribution"], one["half_width"], one["tissue"])
            pen.text((x, y + SIDE + 2), said, fill="black", font=font)
            colour = RED if slide in red else "black"
            pen.text((x, y + SIDE + 2 + 17), shortened(slide, SIDE, FONT), fill=colour, font=font)
        top += height
    first = next(iter(found.values()))[0][1]
    scale_bar(pen, (MARGIN, top + 8), first["width_um"], SIDE)  # one model's patches are all as wide
    for n, line in enumerate(legend):
        pen.text((MARGIN, top + LINE + n * LINE), line, fill="black", font=font)
    return CohortGallery(page, tuple(cuts[1:]))
