"""TIFFs that OpenSlide refuses for how they are stored, or shows otherwise than they are, told by their tags."""

from __future__ import annotations

from pathlib import Path

import tifffile

from stages.passing import UnreadableError
from stages.slide.facts import SlideError
from stages.slide.tiff import open_tiff_file, quiet

_CODECS = {
    tifffile.COMPRESSION.NONE,
    tifffile.COMPRESSION.LZW,
    tifffile.COMPRESSION.JPEG,
    tifffile.COMPRESSION.ADOBE_DEFLATE,
    tifffile.COMPRESSION.DEFLATE,
    tifffile.COMPRESSION.PACKBITS,
    tifffile.COMPRESSION.ZSTD,
}
"""Of any TIFF; of the scanners' own it knows more."""
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 6: 3}
"""Samples of a pixel, by what they say of its colour; OpenSlide shows those of the others by guess."""


def misread(path: Path) -> bool:
    """Whether OpenSlide, taking a file for any TIFF, shows it otherwise than it is, or less of it than there is.

    It looks at the first page alone, and at the next where that is as large: a second picture of the same place.
    """
    try:
        with quiet(), open_tiff_file(path) as tiff:
            page = tiff.pages.first
            following = tiff.pages[1] if len(tiff.pages) > 1 else None
            colours = _COLOURS.get(int(page.photometric), 0)
            extra = [int(e) for e in page.extrasamples or ()]
            return bool(
                tiff.is_ome
                or page.subifds
                or page.tags.valueof("Orientation", 1) != 1
                or (page.sampleformat, page.bitspersample) != (1, 8)
                or page.samplesperpixel != colours + (colours == 3 and extra[:1] in ([1], [2]))
                or (following is not None and not following.aspage().is_reduced and following.shape == page.shape)
                or (extra and not _transparent(path))
            )
    except SlideError:
        return True
    except UnreadableError:
        raise
    except Exception:  # damage, which OpenSlide may know how to read around
        return False


def _transparent(path: Path) -> bool:
    from stages.slide.picture import read_picture  # few slides need it

    return read_picture(path).transparent


def beyond_openslide(path: Path) -> bool:
    """Whether OpenSlide refuses a TIFF for how it is stored, not for damage."""
    try:
        with quiet(), open_tiff_file(path) as tiff:
            page = tiff.pages.first
            swapped = tiff.byteorder == ">" and not tiff.is_bigtiff
            usual = (page.sampleformat, page.bitspersample) == (1, 8)
            return swapped or not page.is_tiled or not usual or page.compression not in _CODECS
    except UnreadableError:
        raise
    except Exception:  # damage
        return False
