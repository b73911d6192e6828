#!/usr/bin/env bash
# OpenSlide takes a plain TIFF's first picture for a level and for the resolution, whichever of the levels it is.
#
# Guess:   level 0 is the largest picture of a pyramidal TIFF, and openslide.mpp-x is that of level 0: TIFF gives pages
#          no order, and each has its own resolution tags.
# Seen:    the same three pages (0.5, 2 and 8 um/px; the coarser ones marked as reduced) coarsest first: the finest page
#          is left out, level 0 is the middle one, and the resolution is the coarsest one's. The slide reads as
#          1024 pixels of 8 um instead of 4096 of 0.5: four times too large by its own frame. Where the finest page is
#          marked as reduced too, it is level 0, with 8 um/px: sixteen times too large. No error either way.
# Since:   seen with OpenSlide 4.0.1 (openslide-bin 4.0.1.2); of the generic TIFF format.
# Matters: converters that build a pyramid from its thumbnail up write such files. Patches of so many micrometres are
#          then cut at a sixteenth of their size, with nothing to tell by.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import openslide
import tifffile

print("OpenSlide", openslide.__library_version__)
y, x = np.mgrid[0:3072, 0:4096]
picture = np.stack([x // 16, y // 12, (x // 64 + y // 64) % 2 * 255], -1).astype(np.uint8)


def shown(name, factors, reduced):
    """Size of level 0 and um/px of a file with these pages in this order."""
    with tifffile.TiffWriter(name) as tiff:
        for factor, mark in zip(factors, reduced):
            tiff.write(
                picture[::factor, ::factor],
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                subfiletype=mark,
                resolution=(20000 / factor, 20000 / factor),
                resolutionunit="CENTIMETER",
            )
    with openslide.OpenSlide(name) as slide:
        found = slide.dimensions, float(slide.properties["openslide.mpp-x"])
        print(f"pages {factors}, reduced {reduced}: levels {slide.level_dimensions}, {found[1]:g} um/px")
    return found


finest_first = shown("finest-first.tif", (1, 4, 16), (0, 1, 1))
coarsest_first = shown("coarsest-first.tif", (16, 4, 1), (1, 1, 0))
all_reduced = shown("all-reduced.tif", (16, 4, 1), (1, 1, 1))
print("truth: 4096 x 3072 pixels of 0.5 um")
seen = (((4096, 3072), 0.5), ((1024, 768), 8.0), ((4096, 3072), 8.0))
sys.exit((finest_first, coarsest_first, all_reduced) != seen)
PYTHON
