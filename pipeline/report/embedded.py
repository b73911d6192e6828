"""Pictures that travel inside a report, so that it can be mailed: as many as a page of a sensible size holds."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from pipeline.output.slide_folder import PREVIEW

BUDGET = 10_000_000
"""Bytes of the slides' pictures in a page: those of some 1 300 slides. A mail of 25 MB holds it, and browsers open it
at once."""
GALLERY_PX, GALLERY_BYTES = 1100, 250_000
"""Width, and bytes at most, of the gallery as it is in a page."""


def folder_of(slide: str) -> str:
    """The address of a slide's folder, from the report."""
    return f"slides/{quote(os.fsencode(slide), safe='')}"


def data_uri(file: bytes) -> str:
    """A JPEG file as an address that is the picture."""
    return f"data:image/jpeg;base64,{base64.b64encode(file).decode()}"


def previews(folder: Path, slides: Iterable[str]) -> dict[str, str]:
    """By slide the address of its small picture: the picture itself, of as many slides as `BUDGET` allows; of others
    that of the file. Slides without such a picture, as of earlier versions, are left out.

    Args:
        folder: the run's.
        slides: whose pictures matter most first.
    """
    found: dict[str, str] = {}
    left = BUDGET
    for slide in slides:
        file = folder / "slides" / slide / PREVIEW
        if os.sep in slide or slide in found:
            continue
        try:
            if left <= 0:
                if file.exists():
                    found[slide] = f"{folder_of(slide)}/{PREVIEW}"
                continue
            address = data_uri(file.read_bytes())
        except (OSError, ValueError):  # its row tells of it where it matters
            continue
        left -= len(address)
        found[slide] = address if left >= 0 else f"{folder_of(slide)}/{PREVIEW}"
    return found


def smaller(file: Path, cuts: Sequence[int] = ()) -> list[str]:
    """A picture as the page holds it, in parts one below the other, for paper cuts none; empty where it cannot be read.

    Args:
        file: the picture.
        cuts: upper edges of all parts but the first, pixels of the picture.
    """
    try:
        with Image.open(file) as image:
            share = min(1.0, GALLERY_PX / image.width)
            shown = image.convert("RGB").resize(
                (round(image.width * share), max(1, round(image.height * share))), Image.Resampling.HAMMING
            )
    except (OSError, ValueError):
        return []
    edges = [0, *(round(cut * share) for cut in cuts), shown.height]
    parts = [shown.crop((0, upper, shown.width, lower)) for upper, lower in pairwise(edges) if upper < lower]
    for quality in (80, 65, 50, 35, 20):
        files = [_coded(part, quality) for part in parts]
        if sum(map(len, files)) <= GALLERY_BYTES:
            break
    return [data_uri(file) for file in files]


def _coded(part: Image.Image, quality: int) -> bytes:
    held = io.BytesIO()
    part.save(held, "JPEG", quality=quality)
    return held.getvalue()
