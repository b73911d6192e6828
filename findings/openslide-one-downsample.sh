#!/usr/bin/env bash
# OpenSlide has one downsample a level, the mean of what width and height say, and places the level by it on both
# axes.
#
# Guess:   what lies at (x, y) of level 0 is shown at (x, y), whatever level read_region is asked for.
# Seen:    writers divide by a whole number and drop the rest, so of a long strip 16384 x 1055 the level 64 times
#          coarser is 256 x 16: 64 along x, 65.94 along y. OpenSlide takes 64.97 for both. What stands at the right
#          end is shown nearly four of the level's pixels, 232 of level 0, too far right; asked for exactly where it
#          is, the level shows what lies to the left of it.
# Since:   seen with OpenSlide 4.0.0 (openslide-bin 4.0.0.2) and 4.0.1 (4.0.1.2); with any format whose levels are of
#          rounded sizes.
# Matters: needle biopsies are scanned as long strips, and attention, tissue masks and heat maps are made on the
#          coarsest levels: at 0.25 um/px this is 58 um, several cells' width, none at the left end and most at the
#          right.
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
width, height, factor, mark = 16384, 1055, 64, 15360
strip = np.full((height, width, 3), 255, np.uint8)
strip[:, mark : mark + 256] = 0
rows, columns = height // factor, width // factor
blocks = strip[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
coarse = blocks.mean((1, 3)).astype(np.uint8)
options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
with tifffile.TiffWriter("strip.tif") as tiff:
    tiff.write(strip, resolution=(40000, 40000), resolutionunit="CENTIMETER", **options)
    tiff.write(coarse, subfiletype=1, **options)
slide = openslide.OpenSlide("strip.tif")
print("levels", slide.level_dimensions, "downsamples", slide.level_downsamples)


def dark_from(level, x, columns, step):
    """Where the mark begins, in pixels of level 0, by reading a row from x on."""
    row = np.asarray(slide.read_region((x, 0), level, (columns, 1)).convert("RGB"))[0, :, 0]
    return x + int(np.flatnonzero(row < 128)[0]) * step


fine = dark_from(0, mark - 1000, 2000, 1)
shown = dark_from(1, 0, 256, slide.level_downsamples[1])
print(f"the mark begins at x = {fine} on level 0, at x = {shown:.0f} on level 1: {shown - fine:.0f} pixels off")
aimed = np.asarray(slide.read_region((mark, 0), 1, (4, 8)).convert("RGB"))
print(f"level 1 read at the mark, which is four of its pixels wide: mean {aimed.mean():.0f} of 255, black would be 0")
sys.exit(not (fine == mark and shown - fine > 2 * factor and aimed.mean() > 100))
PYTHON
