"""How a slide shows itself in a notebook: a small thumbnail and what the file says of itself."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stages.amounts import size
from stages.geometry import Box
from stages.html import image, table
from stages.slide.facts import SlideFacts

SIDE = 256
"""Pixels along the thumbnail's longer side."""
MOST_PIXELS = 2**24
"""Of a level that is read for it; a slide whose coarsest level is larger is shown without."""

Read = Callable[[int, Box], NDArray[np.uint8]]


def in_a_line(facts: SlideFacts) -> str:
    """Format, size, resolution and levels, in words."""
    full, count = facts.levels[0], len(facts.levels)
    mpp = f"{facts.mpp.x:.4g} x {facts.mpp.y:.4g} µm/px" if facts.mpp else "resolution unknown"
    return f"{facts.vendor}, {full.width} x {full.height} px, {mpp}, {count} level{'s' if count > 1 else ''}"


def card(facts: SlideFacts, read: Read) -> str:
    """The slide as HTML; of its pixels only one coarse level is read, never the label or macro image.

    A slide whose pixels cannot be read is shown by its facts, and by what is wrong with it.

    Args:
        facts: the slide's.
        read: its `Slide.read_level`.
    """
    rows: list[tuple[str, object]] = []
    try:
        shown = image(_thumbnail(facts, read), description=f"thumbnail of {facts.path.name}")
    except Exception as exc:  # showing a value must never fail, and the facts are still true
        shown, rows = "", [("no thumbnail", " ".join(str(exc).split()))]
    true, full = facts.mpp, facts.levels[0]
    pixels = f"{full.width} x {full.height} px"
    if true:
        pixels += f", {full.width * true.x / 1000:.2f} x {full.height * true.y / 1000:.2f} mm"
    rows = [
        ("format", f"{facts.vendor}, {size(facts.file_bytes)}"),
        ("size", pixels),
        ("resolution", f"{true.x:.4g} x {true.y:.4g} µm/px ({facts.mpp_source})" if true else facts.mpp_problem),
        ("levels", ", ".join(f"{level.width} x {level.height}" for level in facts.levels)),
        *rows,
    ]
    return f"<div>{shown}{table(rows, caption=facts.path.name)}</div>"


def _thumbnail(facts: SlideFacts, read: Read) -> bytes:
    """PNG of the slide's scanned bounds from the coarsest level that is large enough.

    Raises:
        ValueError: there is no level small enough to be read for it.
    """
    from PIL import Image  # only a notebook needs it

    sizes = [max(level.width, level.height) for level in facts.levels]
    index = max((i for i, side in enumerate(sizes) if side >= SIDE), default=0)
    level = facts.levels[index]
    corners = (
        (facts.bounds.x, facts.bounds.y),
        (facts.bounds.x + facts.bounds.width, facts.bounds.y + facts.bounds.height),
    )
    (left, top), (right, bottom) = level.from_level0(corners).tolist()
    x, y = math.floor(left), math.floor(top)
    box = Box(x, y, math.ceil(right) - x, math.ceil(bottom) - y).intersect(Box(0, 0, level.width, level.height))
    if box.area > MOST_PIXELS:
        raise ValueError(f"its coarsest level has {level.width} x {level.height} px, too many to read for one")
    picture = Image.fromarray(read(index, box))
    picture.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    png = io.BytesIO()
    picture.save(png, format="PNG")
    return png.getvalue()
