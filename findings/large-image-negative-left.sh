#!/usr/bin/env bash
# large_image takes a patch that begins left of the slide from the slide's right edge.
#
# Guess:   a region of 512 x 512 with left = -100 is padded where there is no slide, cut to the 412 columns that there
#          are, or refused.
# Seen:    a negative left or top counts from the far edge, as an index does in Python. The region is cut to the last
#          100 columns of the slide: real tissue, of the right resolution, from the other side. A patch that reaches
#          past the right edge is cut as one would guess.
# Since:   large-image 1.35.6; it is meant so and in the argument's description.
# Matters: patches around points (cells, annotations, attention's maxima) begin half a patch to the left of the point
#          and so reach past the edge in a few cases of each cohort. OpenSlide pads them, so a pipeline that moves
#          from one to the other goes on running, and learns from the wrong corner of the slide.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check large-image==1.35.6 large-image-source-openslide==1.35.6 \
    openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import large_image
import numpy as np
import openslide
import tifffile

print("large-image", version("large-image"))
width, height, patch = 2048, 1024, 512
image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
tifffile.imwrite(
    "slide.tif", image, tile=(256, 256), photometric="rgb", resolution=(20000, 20000), resolutionunit="CENTIMETER"
)
source = large_image.open("slide.tif")


def region(left):
    where = {"left": left, "top": 0, "width": patch, "height": patch, "units": "base_pixels"}
    return source.getRegion(region=where, format=large_image.constants.TILE_FORMAT_NUMPY)[0][..., :3]


cut, wrapped = region(width - 100), region(-100)
print("left =", width - 100, "gives", cut.shape)
print("left = -100 gives", wrapped.shape)
far = bool(wrapped.shape == (patch, 100, 3) and (wrapped == image[:patch, -100:]).all())
print("it is the slide's last 100 columns:", far)
padded = np.asarray(openslide.OpenSlide("slide.tif").read_region((-100, 0), 0, (patch, patch)))
print("OpenSlide: 100 transparent columns, then the slide's first:", end=" ")
print(bool((padded[:, :100, 3] == 0).all() and (padded[:, 100:, :3] == image[:patch, : patch - 100]).all()))
sys.exit(not (far and cut.shape == (patch, 100, 3)))
PYTHON
