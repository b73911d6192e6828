"""Text on pictures: in a font that is there on every machine, measured before it is drawn."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

MINUS = "\N{MINUS SIGN}"
RED = (176, 0, 32)
"""Of warnings."""
LEAST = 0.005
"""Log-odds below this have no digit that is not 0 in two decimals."""
OURS = frozenset(filter(str.isprintable, map(chr, range(256)))) | {MINUS, "…"}
"""Characters that need no look into the font, which shows them: of western European names, and what we write."""


@lru_cache(maxsize=16)
def pen_font(size: float) -> ImageFont.FreeTypeFont:
    """The font for Pillow, ``size`` pixels high."""
    return ImageFont.truetype(_file(), size)


def printable(text: str) -> str:
    """The text with what the font cannot show replaced by "?": names of slides come in all scripts, and damaged."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    if OURS.issuperset(composed):
        return composed
    known = _known()
    return "".join(c if ord(c) in known else "?" for c in composed)


@lru_cache(maxsize=64)  # what is said of colours and intervals is the same on many pages
def wrapped(text: str, width: float, size: float) -> tuple[str, ...]:
    """Printable text in lines at most ``width`` pixels wide, broken between words, or within one that is wider.

    Args:
        text: any.
        width: pixels.
        size: of the font, pixels.
    """
    font, lines, line = pen_font(size), [], ""
    for word in printable(text).split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while font.getlength(line) > width and len(line) > 1:
            fits = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or font.getlength(line[:n]) <= width)
            lines.append(line[:fits])
            line = line[fits:]
    return (*lines, line) if line else tuple(lines)


def shortened(text: str, width: float, size: float) -> str:
    """Printable text, its end replaced by an ellipsis where it is wider than ``width`` pixels."""
    font, text = pen_font(size), printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def warning_lines(warnings: Sequence[str], width: float, size: float, most: int) -> tuple[str, ...]:
    """What makes a prediction doubtful, for a picture of it, in at most so many lines, the last shortened; none of what
    is not doubtful."""
    if not warnings:
        return ()
    head = "Warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    lines = wrapped(f"{head}: {'; '.join(warnings)}", width, size)
    return lines if len(lines) <= most else (*lines[: most - 1], shortened(" ".join(lines[most - 1 :]), width, size))


def signed(value: float, half_width: float | None = None) -> str:
    """Log-odds as ``+2.83 ± 0.15``, with a true minus sign, what would be 0.00 as ``+0.0021 ± 0.0004``; a half-width of
    None or without end is left out."""
    digits = 2 if abs(value) >= LEAST or value == 0 else 4
    told = f"{value:+.{digits}f}"
    told = told.replace("-", MINUS) if float(told) else told[1:]
    return told if half_width is None or half_width == float("inf") else f"{told} ± {half_width:.{digits}f}"


@lru_cache(maxsize=1)
def _file() -> str:
    """DejaVu Sans, which knows Latin, Greek, Cyrillic, µ and ±; Pillow's own font knows little beyond ASCII.

    It comes with matplotlib, and is found without importing that, which takes half a second.
    """
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ImportError("matplotlib is not installed, and with it the font of pictures: install it")
    return str(Path(spec.origin).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf")


@lru_cache(maxsize=1)
def _known() -> frozenset[int]:
    """Code points that the font shows."""
    from fontTools.ttLib import TTFont

    with TTFont(_file(), lazy=True) as font:
        return frozenset(font.getBestCmap())
