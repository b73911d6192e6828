#!/usr/bin/env bash
# How sharp OpenSlide shows a coarser level depends on the coordinates that it is asked for.
#
# Guess:   read_region at a level of 4 gives that level's stored pixels: level-0 coordinates in between are rounded to
#          one.
# Seen:    it draws the level shifted by the fraction and interpolates. At x = 4n the pixels are as stored; at 4n + 1
#          and 4n + 3 three quarters of one are mixed with a quarter of its neighbour; at 4n + 2 it is half and half,
#          and the finest detail is gone. Where the sizes do not divide, no coordinate but 0 fits, and a regular grid
#          of patches fades from sharp to blurred and back across the slide.
# Since:   seen with OpenSlide 4.0.0 (openslide-bin 4.0.0.2) and 4.0.1 (4.0.1.2).
# Matters: patches at 1 or 2 um/px come from such a level, and their corners from a grid or a contour that knows
#          nothing of it. Whether a patch is sharp is then a matter of its place: features differ for the same tissue,
#          and two readers of the same file do not agree bit by bit.
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
resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}


def slide(name, side):
    """A slide of two levels, the second of squares of one pixel in black and white."""
    rows, columns = np.indices((side // 4, side // 4))
    squares = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    with tifffile.TiffWriter(name) as tiff:
        tiff.write(np.zeros((side, side, 3), np.uint8), tile=(256, 256), photometric="rgb", **resolution)
        tiff.write(squares, tile=(256, 256), photometric="rgb", subfiletype=1)
    return openslide.OpenSlide(name)


def contrast(slide, x, y):
    """Of a patch of level 1, 1 as it is stored."""
    patch = np.asarray(slide.read_region((x, y), 1, (64, 64)).convert("RGB"), float)[1:-1, 1:-1, 0]
    return float(np.ptp(patch) / 255)


whole = slide("whole.tif", 4096)
print("level 1 is", whole.level_downsamples[1], "times coarser; contrast of a patch of it at")
found = [contrast(whole, 256 + i, 256 + i) for i in (0, 1, 2, 3, 4)]
for i, value in enumerate(found):
    print(f"  x = y = {256 + i}: {value:.2f}")
odd = slide("odd.tif", 4099)
print(f"level 1 is {odd.level_downsamples[1]:.4f} times coarser (4099 pixels to 1024); contrast of patches of it at")
places = range(0, 4097 - 512, 512)
along = [contrast(odd, x, 0) for x in places]
print(" ", ", ".join(f"x = {x}: {value:.2f}" for x, value in zip(places, along)))
grid_fades = max(along) == 1 and min(along) < 0.6
sys.exit(not (found[0] == found[4] == 1 and found[2] < 0.02 and found[1] < 0.6 and grid_fades))
PYTHON
